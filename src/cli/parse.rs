//! Values of arguments: numbers with underscores, sizes with units, addresses.
//!
//! Errors are parts of a sentence: clap puts the argument and its value before them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The port of an address that names none.
pub const PORT_DEFAULT: u16 = 3001;

/// A number, with underscores between digits as wanted: `10_000_000`.
pub fn number(text: &str) -> Result<u64, String> {
    digits(text)?.parse().map_err(|error| format!("{error}"))
}

/// A number of 128 bits, decimal or `0x` and hexadecimal.
pub fn number_u128(text: &str) -> Result<u128, String> {
    match text.strip_prefix("0x") {
        Some(hexadecimal) => u128::from_str_radix(&hexadecimal.replace('_', ""), 16),
        None => digits(text)?.parse(),
    }
    .map_err(|error| format!("{error}"))
}

/// A number above 0 of 32 bits.
pub fn positive_u32(text: &str) -> Result<u32, String> {
    match u32::try_from(number(text)?) {
        Ok(0) => Err("it has to be above 0".into()),
        Ok(number) => Ok(number),
        Err(_) => Err(format!("it has to be at most {}", u32::MAX)),
    }
}

/// Bytes: `4096`, `512KiB`, `512MiB`, `4GiB`, `16TiB`, or the units `B`, `KB`, `MB`, `GB`, `TB` of
/// powers of ten.
pub fn size(text: &str) -> Result<u64, String> {
    let unit_at = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (count, unit) = text.split_at(unit_at);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(format!("'{unit}' is no unit; write 512MiB or 4GiB")),
    };
    let count = number(count.trim_end())?;
    count
        .checked_mul(factor)
        .ok_or_else(|| "it is more than 2^64 bytes".into())
}

/// Nanoseconds: `500ms`, `5s`, `10m`, `12h`, `7d`; 0 needs no unit.
pub fn duration(text: &str) -> Result<u64, String> {
    let unit_at = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (count, unit) = text.split_at(unit_at);
    let count = number(count.trim_end())?;
    let milliseconds: u64 = match unit.to_ascii_lowercase().as_str() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if count == 0 => 1,
        _ => return Err(format!("'{unit}' is no unit of time; write 30s, 12h or 7d")),
    };
    let nanoseconds = milliseconds * 1_000_000;
    count
        .checked_mul(nanoseconds)
        .filter(|nanoseconds| *nanoseconds <= u64::MAX / 2)
        .ok_or_else(|| "it is more than 292 years".into())
}

/// An address: `127.0.0.1:3000`, `[::1]:3000`, `3000` (on 127.0.0.1), or an IP (port 3001).
pub fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    if let Ok(port) = text.parse::<u16>() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    if let Ok(ip) = text
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>()
    {
        return Ok((ip, PORT_DEFAULT).into());
    }
    Err("write IP:PORT or PORT, as in 127.0.0.1:3000; names are not resolved".into())
}

/// Addresses of the replicas, in their order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Addresses(pub Vec<SocketAddr>);

/// Addresses with commas between them.
pub fn addresses(text: &str) -> Result<Addresses, String> {
    let addresses: Vec<SocketAddr> = text
        .split(',')
        .map(|part| address(part.trim()).map_err(|error| format!("'{part}': {error}")))
        .collect::<Result<_, String>>()?;
    for (index, address) in addresses.iter().enumerate() {
        if addresses[..index].contains(address) {
            return Err(format!("{address} is there twice"));
        }
    }
    Ok(Addresses(addresses))
}

/// The digits without underscores, which may stand only between digits.
fn digits(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split('_').collect();
    let numeric = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if parts.iter().all(numeric) {
        Ok(parts.concat())
    } else {
        Err("it is not a number; write 10000 or 10_000".into())
    }
}

#[cfg(test)]
mod tests {
    use super::{address, addresses, duration, number, number_u128, positive_u32, size};

    #[test]
    fn numbers_may_have_underscores_between_digits() {
        assert_eq!(number("10_000_000"), Ok(10_000_000));
        assert_eq!(number("0"), Ok(0));
        assert_eq!(number("18446744073709551615"), Ok(u64::MAX));
        for wrong in ["", "_1", "1_", "1__0", "-1", "+1", "1.5", "1e6", "ten"] {
            assert!(number(wrong).is_err(), "{wrong}");
        }
        assert!(
            number("18446744073709551616")
                .unwrap_err()
                .contains("too large")
        );
        assert_eq!(number_u128("0xff"), Ok(255));
        assert_eq!(
            number_u128("340282366920938463463374607431768211455"),
            Ok(u128::MAX)
        );
        assert!(positive_u32("0").is_err());
        assert!(positive_u32("4294967296").is_err());
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("512MiB"), Ok(512 << 20));
        assert_eq!(size("4GiB"), Ok(4 << 30));
        assert_eq!(size("1_024 KiB"), Ok(1 << 20));
        assert_eq!(size("16TB"), Ok(16_000_000_000_000));
        assert!(size("4G").unwrap_err().contains("4GiB"));
        assert!(size("GiB").is_err());
        assert!(size("99999999999TiB").is_err());
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(500_000_000));
        assert_eq!(duration("5s"), Ok(5_000_000_000));
        assert_eq!(duration("7d"), Ok(7 * 86_400 * 1_000_000_000));
        assert_eq!(duration("0"), Ok(0));
        for wrong in ["5", "s", "5w", "-1s", "1000000d", "99999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_are_ip_and_port() {
        let text = |wanted: &str| address(wanted).map(|address| address.to_string());
        assert_eq!(text("127.0.0.1:3000").unwrap(), "127.0.0.1:3000");
        assert_eq!(text("3001").unwrap(), "127.0.0.1:3001");
        assert_eq!(text("0.0.0.0").unwrap(), "0.0.0.0:3001");
        assert_eq!(text("[::1]:3000").unwrap(), "[::1]:3000");
        assert_eq!(text("::1").unwrap(), "[::1]:3001");
        for wrong in ["", "localhost:3000", "65536", "1.2.3.4:", "1.2.3"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
        assert_eq!(addresses("3000, 3001,3002").unwrap().0.len(), 3);
        assert!(addresses("3000,,3001").is_err());
        assert!(
            addresses("3000,127.0.0.1:3000")
                .unwrap_err()
                .contains("twice")
        );
    }
}
