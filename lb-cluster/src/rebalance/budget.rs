//! How many connections may be moved in a minute.

use std::{fmt, str::FromStr};

/// A part of all connections in a minute: from 0.001 % to 100 %. Written as "1%/min".
///
/// Only by the minute: that is what is kept to. 6 % in an hour is "0.1%/min".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Budget {
    /// In thousandths of a percent.
    thousandths: u32,
}

/// A text isn't a budget.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "rebalancing budget {0:?}: say what part of all connections may be moved in a minute, \
     0.001%/min to 100%/min, as in \"1%/min\""
)]
pub struct BadBudget(pub String);

impl Budget {
    /// What `thousandths` is of the whole.
    pub(super) const WHOLE: u32 = 100_000;

    /// Thousandths of a percent, 1..=100,000.
    pub(super) const fn thousandths(self) -> u32 {
        self.thousandths
    }

    /// How many of `open` connections may be moved in a minute. One, where it is less than that: the time between
    /// them is longer then.
    pub fn of(self, open: u64) -> u64 {
        let part = u128::from(open) * u128::from(self.thousandths) / u128::from(Self::WHOLE);
        (part as u64).max(1)
    }
}

impl FromStr for Budget {
    type Err = BadBudget;

    fn from_str(text: &str) -> Result<Self, BadBudget> {
        let bad = || BadBudget(text.to_owned());
        let number = text.strip_suffix("%/min").ok_or_else(bad)?;
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str, most: usize| {
            (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !digits(whole, 3) || !digits(decimals, 3) {
            return Err(bad());
        }
        let whole: u32 = whole.parse().map_err(|_| bad())?;
        let decimals: u32 = format!("{decimals:0<3}").parse().map_err(|_| bad())?;
        let thousandths = whole * 1_000 + decimals;
        if (1..=Self::WHOLE).contains(&thousandths) { Ok(Self { thousandths }) } else { Err(bad()) }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%/min", f64::from(self.thousandths) / 1_000.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_budget_is_refused_with_an_example() {
        for text in [
            "",
            "1",
            "1%",
            "%/min",
            "1%/h",
            "1%/s",
            "-1%/min",
            "+1%/min",
            "0%/min",
            "0.0001%/min",
            "100.001%/min",
            "1e1%/min",
            "1 %/min",
            ".5%/min",
            "1.%/min",
            "1.2.3%/min",
            "NaN%/min",
            "9999999999%/min",
            "١%/min",
        ] {
            assert_eq!(text.parse::<Budget>(), Err(BadBudget(text.into())));
        }
        assert_eq!(
            BadBudget("1%/h".into()).to_string(),
            "rebalancing budget \"1%/h\": say what part of all connections may be moved in a minute, 0.001%/min to \
             100%/min, as in \"1%/min\""
        );
    }

    #[test]
    fn a_budget_is_rounded_down_but_not_to_nothing() {
        let of = |text: &str, open| text.parse::<Budget>().unwrap().of(open);
        assert_eq!(of("5%/min", 400), 20);
        assert_eq!(of("1%/min", 199), 1);
        assert_eq!(of("0.5%/min", 100), 1);
        assert_eq!(of("0.001%/min", 1_000_000), 10);
        assert_eq!(of("100%/min", u64::MAX), u64::MAX);
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_is_shown(thousandths in 1..=Budget::WHOLE) {
            let budget = Budget { thousandths };
            prop_assert_eq!(budget.to_string().parse(), Ok(budget));
        }
    }
}
