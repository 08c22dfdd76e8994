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
