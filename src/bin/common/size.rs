//! Numbers of bytes, as people write and read them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes, as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor: u64 = match unit.trim().to_ascii_uppercase().as_str() {
            "" | "B" => 1,
            "K" | "KB" => 1000,
            "M" | "MB" => 1000_u64.pow(2),
            "G" | "GB" => 1000_u64.pow(3),
            "T" | "TB" => 1000_u64.pow(4),
            "KIB" => 1 << 10,
            "MIB" => 1 << 20,
            "GIB" => 1 << 30,
            "TIB" => 1 << 40,
            _ => return Err("a size is a number and B, KB, MB, GB, TB, KiB, MiB, GiB or TiB".into()),
        };
        let number: u64 = number.parse().map_err(|_| "a size begins with a whole number".to_owned())?;
        number.checked_mul(factor).map(Self).ok_or_else(|| "that is too large".to_owned())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1000, "kB")];
        match units.into_iter().find(|(factor, _)| self.0 >= *factor) {
            // Tenths are enough for people; machines get the bytes.
            Some((factor, unit)) => write!(f, "{}.{} {unit}", self.0 / factor, self.0 % factor * 10 / factor),
            None => write!(f, "{} B", self.0),
        }
    }
}
