//! What a column of the server keeps less of than its type could: fewer digits, fewer characters. Pure.
//!
//! The server rounds or refuses without naming the column; here the value is refused before it is sent.

use super::value::Value;
use super::wire::Wire;
use serde::{Deserialize, Serialize};

/// What a column of the server keeps less of than its type could.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Limit {
    /// Integers of so many bits.
    Bits(u8),
    /// So many characters.
    Characters(u32),
    /// Decimal digits before and behind the point.
    Digits {
        /// Before the point.
        whole: u32,
        /// Behind it.
        scale: u8,
    },
    /// Digits of a fraction of a second.
    Fraction(u8),
}

impl Limit {
    /// From a type of the catalogue and its modifier; `None` where there is no limit, or where digits
    /// before the point would be rounded, for which there is no remedy but another type.
    pub fn of(pg_type: &str, modifier: i32) -> Option<Limit> {
        match pg_type {
            "int2" => return Some(Limit::Bits(16)),
            "int4" => return Some(Limit::Bits(32)),
            _ => {}
        }
        let modifier = u32::try_from(modifier).ok()?;
        match pg_type {
            "varchar" => Some(Limit::Characters(modifier.checked_sub(4)?)),
            "numeric" => {
                let precision = modifier.checked_sub(4)? >> 16;
                let (scale, spare) = Limit::scale(modifier);
                Some(Limit::Digits {
                    whole: precision.saturating_sub(u32::from(scale)) + spare,
                    scale,
                })
            }
            "time" | "timestamp" | "timestamptz" => {
                Some(Limit::Fraction(u8::try_from(modifier).ok()?))
            }
            _ => None,
        }
    }

    /// The scale in a modifier of numeric, eleven bits with a sign, and what a negative one adds in front.
    fn scale(modifier: u32) -> (u8, u32) {
        let bits = (modifier - 4) & 2047;
        if bits < 1024 {
            (u8::try_from(bits).unwrap_or(u8::MAX), 0)
        } else {
            (0, 2048 - bits)
        }
    }

    /// Whether a modifier of numeric rounds digits before the point.
    pub fn rounds_whole_digits(pg_type: &str, modifier: i32) -> bool {
        pg_type == "numeric" && u32::try_from(modifier).is_ok_and(|m| m >= 4 && (m - 4) & 1024 != 0)
    }

    /// Digits behind the point, where they are what is limited.
    pub fn kept(self) -> Option<u8> {
        match self {
            Limit::Digits { scale, .. } => Some(scale),
            Limit::Fraction(n) => Some(n),
            Limit::Bits(_) | Limit::Characters(_) => None,
        }
    }

    /// Why a value does not fit: SQLSTATE and what is wrong.
    pub fn refuses(self, wire: Wire, v: &Value) -> Option<(&'static str, String)> {
        let number = |text: &str| {
            let text = text.trim_start_matches(['-', '+']);
            let (w, f) = text.split_once('.').unwrap_or((text, ""));
            (
                w.trim_start_matches('0').len(),
                f.trim_end_matches('0').len(),
            )
        };
        let (whole, behind) = match (wire, v) {
            // Without an exponent, with the fewest digits that read back as the same real.
            (Wire::Numeric, Value::Real(r)) if r.is_finite() => number(&format!("{r}")),
            (Wire::Numeric, Value::Real(_)) => (usize::MAX, 0),
            (Wire::Numeric, Value::Int(i)) => number(&i.to_string()),
            (Wire::Typed(super::Typed::Decimal), Value::Text(text)) => {
                match text.parse::<f64>() {
                    // What has an exponent is not counted but refused.
                    Ok(_) if text.contains(['e', 'E']) => (usize::MAX, 0),
                    _ => number(text),
                }
            }
            (Wire::Typed(t), v) => (0, t.digits(v)),
            _ => (0, 0),
        };
        match (self, v) {
            (Limit::Bits(bits), Value::Int(i)) if i.unsigned_abs() >> (bits - 1) != 0 => {
                let lowest = *i == -(1_i64 << (bits - 1));
                (!lowest).then(|| ("22003", format!("the number takes more than {bits} bits")))
            }
            (Limit::Characters(n), Value::Text(t)) => {
                let long = t.chars().count() > usize::try_from(n).unwrap_or(usize::MAX);
                long.then(|| ("22001", format!("the text has more than {n} characters")))
            }
            (Limit::Digits { whole: max, .. }, _)
                if whole > usize::try_from(max).unwrap_or(usize::MAX) =>
            {
                Some((
                    "22003",
                    format!("the number has more than {max} digits before the point"),
                ))
            }
            (Limit::Digits { scale, .. } | Limit::Fraction(scale), _)
                if behind > usize::from(scale) =>
            {
                Some((
                    "22003",
                    format!("the value has more digits behind the point than the {scale} it keeps"),
                ))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::typed::Typed;
    use super::*;

    #[test]
    fn what_the_server_would_round_or_refuse_is_refused() {
        let decimal = Wire::Typed(Typed::Decimal);
        let text = |t: &str| Value::Text(t.to_owned());
        // numeric(10,2), numeric(3,-2), varchar(5), timestamp(3).
        let money = Limit::of("numeric", ((10 << 16) | 2) + 4).expect("a limit");
        assert_eq!(money, Limit::Digits { whole: 8, scale: 2 });
        assert!(!Limit::rounds_whole_digits("numeric", ((10 << 16) | 2) + 4));
        assert!(Limit::rounds_whole_digits(
            "numeric",
            ((3 << 16) | 2046) + 4
        ));
        for (limit, wire, value, fits) in [
            (money, Wire::Numeric, Value::Real(12.34), true),
            (money, Wire::Numeric, Value::Real(1e-7), false),
            (money, Wire::Numeric, Value::Real(f64::INFINITY), false),
            (money, Wire::Numeric, Value::Int(12_345_678), true),
            (money, Wire::Numeric, Value::Int(-123_456_789), false),
            (money, decimal, text("-00012.5000"), true),
            (money, decimal, text("1.005"), false),
            (money, decimal, text("1e2"), false),
            (Limit::Bits(16), Wire::Int, Value::Int(-32_768), true),
            (Limit::Bits(16), Wire::Int, Value::Int(32_768), false),
            (Limit::Bits(32), Wire::Int, Value::Int(i64::MIN), false),
            (Limit::Bits(32), Wire::Int, Value::Int(2_147_483_647), true),
            (Limit::Characters(5), Wire::Text, text("ééééé"), true),
            (Limit::Characters(5), Wire::Text, text("abcde "), false),
            (
                Limit::Fraction(3),
                Wire::Typed(Typed::Timestamp),
                text("2024-01-01 00:00:00.1230"),
                true,
            ),
            (
                Limit::Fraction(3),
                Wire::Typed(Typed::Timestamp),
                text("2024-01-01 00:00:00.1234"),
                false,
            ),
        ] {
            assert_eq!(
                limit.refuses(wire, &value).is_none(),
                fits,
                "{limit:?} {value:?}"
            );
        }
        assert_eq!(Limit::of("varchar", 9), Some(Limit::Characters(5)));
        assert_eq!(Limit::of("varchar", -1), None);
        assert_eq!(Limit::of("timestamp", 3), Some(Limit::Fraction(3)));
        assert_eq!(Limit::of("int8", -1), None);
    }
}
