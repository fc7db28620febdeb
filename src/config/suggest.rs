//! "Did you mean": the known name nearest to an unknown one.

/// The nearest of the names, where one is near enough to be a slip of the hand. A key that is right
/// but stands in the wrong section is the nearest of all.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let last = |name: &'a str| name.rsplit('.').next().unwrap_or(name);
    let own_last = name.rsplit('.').next().unwrap_or(name).to_owned();
    let limit = (name.chars().count() / 3).clamp(1, 4);
    known
        .into_iter()
        .map(|candidate| {
            let moved = candidate.contains('.') && last(candidate) == own_last;
            (if moved { 0 } else { distance(name, candidate) }, candidate)
        })
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, ignoring case.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.to_lowercase(), b.to_lowercase());
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (y, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let cost = (diagonal + usize::from(x != *y))
                .min(*cell + 1)
                .min(left + 1);
            diagonal = *cell;
            *cell = cost;
            left = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let known = [
            "upload.batch_size",
            "upload.batch_size_max",
            "remote.url",
            "remote.schema",
        ];
        for (name, expected) in [
            ("upload.batchsize", Some("upload.batch_size")),
            ("uplaod.batch_size", Some("upload.batch_size")),
            ("batch_size", Some("upload.batch_size")),
            ("download.url", Some("remote.url")),
            ("remote.shema", Some("remote.schema")),
            ("remote.colour_of_sky", None),
        ] {
            assert_eq!(nearest(name, known), expected, "{name}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
