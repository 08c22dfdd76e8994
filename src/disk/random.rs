//! Names and secrets nobody can guess.

/// `N` random bytes in hexadecimal, from the system's generator.
pub(crate) fn random_hex<const N: usize>() -> String {
    let mut bytes = [0; N];
    // The only documented failure is a system without a random source: nothing secret can be made there.
    #[allow(clippy::expect_used)]
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes)
        .expect("the system has a random source");
    hex::encode(bytes)
}

/// A number from 0 to below 1.
pub(crate) fn random_below_one() -> f64 {
    let random = u32::from_str_radix(&random_hex::<4>(), 16).unwrap_or(0);
    f64::from(random) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_below_one() {
        assert!((0..1000).all(|_| (0.0..1.0).contains(&random_below_one())));
    }
}
