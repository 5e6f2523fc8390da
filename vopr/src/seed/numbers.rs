//! A set of numbers as a command line names it: `3,17-20,40-`, the last one without an end.

use std::fmt;
use std::str::FromStr;

/// See the module: ranges, first and last, in order, with a gap between any two.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Numbers(Vec<(u64, u64)>);

impl Numbers {
    /// All numbers but these, which are in order.
    #[must_use]
    pub fn all_but(kept: &[u64]) -> Self {
        let mut ranges = Vec::new();
        let mut from = 0;
        for number in kept {
            if *number > from {
                ranges.push((from, number - 1));
            }
            from = number + 1;
        }
        ranges.push((from, u64::MAX));
        Self(ranges)
    }

    /// Whether a number is one of them.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= number);
        after > 0 && number <= self.0[after - 1].1
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            match *last {
                u64::MAX => write!(f, "{separator}{first}-")?,
                last if last == *first => write!(f, "{separator}{first}")?,
                last => write!(f, "{separator}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |digits: &str| {
            let parsed: Result<u64, _> = digits.parse();
            parsed.map_err(|error| format!("{text}: {error}"))
        };
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for part in text.split(',') {
            let (first, last) = match part.split_once('-') {
                None => (number(part)?, number(part)?),
                Some((first, "")) => (number(first)?, u64::MAX),
                Some((first, last)) => (number(first)?, number(last)?),
            };
            let after = ranges.last().is_none_or(|(_, before)| *before < first);
            if !after || last < first {
                return Err(format!("{text}: numbers and ranges have to be in order"));
            }
            ranges.push((first, last));
        }
        Ok(Self(ranges))
    }
}

#[cfg(test)]
mod tests {
    use super::Numbers;

    #[test]
    fn what_is_printed_is_read_again() {
        for text in ["3", "3,17-20", "0-4,6-", "9-"] {
            let numbers: Numbers = text.parse().unwrap();
            assert_eq!(numbers.to_string(), text);
        }
    }

    #[test]
    fn wrong_lists_are_refused() {
        for text in ["", "a", "5-3", "7,3", "3-,9", "1,,2", "-4"] {
            assert!(text.parse::<Numbers>().is_err(), "{text}");
        }
    }

    #[test]
    fn all_others_are_in_the_complement() {
        for kept in [&[][..], &[0], &[2, 3, 9], &[0, 1, 2]] {
            let numbers = Numbers::all_but(kept);
            for number in 0..20 {
                assert_eq!(numbers.contains(number), !kept.contains(&number));
            }
        }
        assert_eq!(Numbers::all_but(&[2, 3, 9]).to_string(), "0-1,4-8,10-");
    }
}
