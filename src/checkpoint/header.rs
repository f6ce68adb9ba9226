//! The header of a safetensors file, checked before it is believed.
//!
//! A file is eight bytes with the header's length N (little-endian), N bytes of JSON, then the data:
//!
//! ```text
//! {"__metadata__": {text: text, ..}, name: {"dtype": .., "shape": [..], "data_offsets": [begin, end]}, ..}
//! ```
//!
//! The safetensors crate checks the types, the sizes, and that the tensors lie side by side. It leaves three things
//! open, which are checked here. If two tensors have one name, it keeps the last and drops the other. Its sum for the
//! end of the file can overflow, which panics in builds that check for overflow. And some of its errors do not name the
//! tensor.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::path::Path;

use safetensors::SafeTensorError;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use super::json::place_and_reason;
use crate::files::escape;
use crate::{Error, Result};

/// The entries of `__metadata__`: text by key.
pub(super) type Entries = BTreeMap<String, String>;

/// The tensors of a header by name, which is unique, and its metadata.
pub(super) type Header = (BTreeMap<String, TensorInfo>, Entries);

/// The one name that is not a tensor's.
pub(super) const METADATA: &str = "__metadata__";

/// Parses and checks a header. Afterwards every tensor's offsets are ascending and inside `body` bytes,
/// and its bytes are as many as its shape and type say.
///
/// # Errors
/// Returns [`Error::File`] or [`Error::Tensor`] if the header is not JSON of the form above, a name comes twice, a
/// tensor's size does not fit its shape and type, tensors overlap or leave gaps, or the file's data is not exactly what
/// the tensors need.
pub(super) fn parse(path: &Path, header: &[u8], body: u64) -> Result<Header> {
    let mut json = serde_json::Deserializer::from_slice(header);
    let read = json.deserialize_map(HeaderVisitor);
    let (tensors, entries) = read
        .and_then(|read| json.end().map(|()| read))
        .map_err(|error| Error::file(path, format!("bad header: {}", place_and_reason(&error))))?;

    // Each tensor alone first, moved to offset 0, so that the error can name it.
    for (name, info) in &tensors {
        let (begin, end) = info.data_offsets;
        let fail = |reason| Error::tensor(path, &escape(name), reason);
        let len = end
            .checked_sub(begin)
            .ok_or_else(|| fail(format!("data ends at {end}, before it begins at {begin}")))?;
        let mut alone = info.clone();
        alone.data_offsets = (0, len);
        Metadata::new(None, vec![(name.clone(), alone)])
            .map_err(|error| fail(format!("{} ({len} bytes)", escape(&error.to_string()))))?;
    }

    let mut in_file_order: Vec<_> = tensors.clone().into_iter().collect();
    in_file_order.sort_by_key(|(_, info)| info.data_offsets);
    let metadata = Metadata::new(None, in_file_order).map_err(|error| match error {
        SafeTensorError::InvalidOffset(name) => {
            let reason = "data overlaps another tensor's or leaves a gap before it";
            Error::tensor(path, &escape(&name), reason)
        }
        other => Error::file(path, format!("bad header: {}", escape(&other.to_string()))),
    })?;
    let needed = metadata.data_len() as u64;
    if needed != body {
        let word = if needed > body {
            "truncated"
        } else {
            "too long"
        };
        let reason = format!("{word}: the tensors need {needed} bytes of data, found {body}");
        return Err(Error::file(path, reason));
    }
    Ok((tensors, entries))
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object that holds tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Header, A::Error> {
        let (mut tensors, mut entries) = (BTreeMap::new(), None);
        while let Some(name) = map.next_key::<String>()? {
            let named = |error| A::Error::custom(format!("`{}`: {error}", escape(&name)));
            if name == METADATA {
                let found = map.next_value::<Option<Entries>>().map_err(named)?;
                if entries.replace(found.unwrap_or_default()).is_some() {
                    return Err(A::Error::custom(format!("`{METADATA}` comes twice")));
                }
                continue;
            }
            let info: TensorInfo = map.next_value().map_err(named)?;
            match tensors.entry(name) {
                Entry::Vacant(free) => free.insert(info),
                Entry::Occupied(first) => {
                    let name = escape(first.key());
                    return Err(A::Error::custom(format!("tensor `{name}` comes twice")));
                }
            };
        }
        Ok((tensors, entries.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(header: &str, body: u64) -> String {
        let error = parse(Path::new("m.safetensors"), header.as_bytes(), body).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("m.safetensors"), "{message}");
        message
    }

    fn entry(name: &str, dtype: &str, shape: &str, begin: u64, end: u64) -> String {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
    }

    #[test]
    fn a_good_header_in_any_order() {
        let b = entry("b", "F32", "[2]", 0, 8);
        let a = entry("a", "BF16", "[3, 1]", 8, 14);
        let nothing = entry("n", "F32", "[0, 7]", 8, 8);
        let header = format!(r#"{{{a},{nothing},"__metadata__":{{"k":"v"}},{b}}}   "#);
        let (tensors, entries) = parse(Path::new("m"), header.as_bytes(), 14).unwrap();
        assert_eq!(entries["k"], "v");
        assert_eq!(tensors.keys().collect::<Vec<_>>(), ["a", "b", "n"]);
        assert_eq!(tensors["a"].data_offsets, (8, 14));
        assert_eq!(tensors["a"].shape, [3, 1]);
        assert!(parse(Path::new("m"), b"{}", 0).unwrap().0.is_empty());
    }

    #[test]
    fn offsets_that_overlap_or_leave_a_gap() {
        let a = entry("a", "F32", "[2]", 0, 8);
        for begin in [0, 4, 7, 9, 12] {
            let b = entry("b", "F32", "[2]", begin, begin + 8);
            let found = message(&format!("{{{a},{b}}}"), begin + 8);
            assert!(
                found.contains("overlaps") && found.contains("tensor `"),
                "{found}"
            );
        }
        let found = message(&format!("{{{}}}", entry("a", "F32", "[1]", 4, 8)), 8);
        assert!(found.contains("`a`") && found.contains("gap"), "{found}");
        let found = message(&format!("{{{}}}", entry("a", "F32", "[1]", 8, 4)), 8);
        assert!(
            found.contains("`a`") && found.contains("before it begins"),
            "{found}"
        );
    }

    #[test]
    fn the_data_is_exactly_what_the_tensors_need() {
        let header = format!("{{{}}}", entry("a", "F32", "[2]", 0, 8));
        assert!(parse(Path::new("m"), header.as_bytes(), 8).is_ok());
        assert!(message(&header, 7).contains("truncated"));
        assert!(message(&header, 9).contains("too long"));
        assert!(message("{}", 1).contains("too long"));
    }

    #[test]
    fn sizes_that_overflow_or_do_not_fit_name_the_tensor() {
        for shape in [
            "[4294967296,4294967296]",
            "[18446744073709551615]",
            "[9223372036854775808,2]",
        ] {
            let found = message(&format!("{{{}}}", entry("a", "F32", shape, 0, 4)), 4);
            assert!(
                found.contains("tensor `a`") && found.contains("overflow"),
                "{found}"
            );
        }
        for (dtype, shape) in [
            ("F32", "[2]"),
            ("F16", "[1]"),
            ("F32", "[]000"),
            ("F4", "[1]"),
        ] {
            let found = message(&format!("{{{}}}", entry("a", dtype, shape, 0, 5)), 5);
            assert!(found.contains("`a`"), "{found}");
        }
    }

    #[test]
    fn an_end_of_file_beyond_64_bits_is_an_error() {
        // Each tensor is possible alone and they lie side by side, but the file would end at 2^64 - 1.
        // The crate's own sum of this and the header's length overflows.
        let max = u64::MAX / 8;
        let mut entries = Vec::new();
        for i in 0..8 {
            entries.push(entry(
                &format!("t{i}"),
                "U8",
                &format!("[{max}]"),
                i * max,
                (i + 1) * max,
            ));
        }
        entries.push(entry("last", "U8", "[7]", 8 * max, u64::MAX));
        let found = message(&format!("{{{}}}", entries.join(",")), 16);
        assert!(
            found.contains("truncated") && found.contains("18446744073709551615"),
            "{found}"
        );
    }

    #[test]
    fn a_name_that_comes_twice() {
        let a = entry("a", "F32", "[2]", 0, 8);
        let found = message(&format!("{{{a},{a}}}"), 8);
        assert!(found.contains("`a` comes twice"), "{found}");
    }

    #[test]
    fn forms_that_are_no_header() {
        for header in [
            "",
            "[]",
            "{",
            "{} {}",
            r#"{"a":1}"#,
            r#"{"a":{"dtype":"F32","shape":[1]}}"#,
            r#"{"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}}"#,
            r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#,
            r#"{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}"#,
            r#"{"a":{"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,4]}}"#,
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}"#,
            r#"{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
            r#"{"__metadata__":{"k":1}}"#,
        ] {
            let found = message(header, 4);
            assert!(
                found.contains("bad header") && found.contains("line 1"),
                "{found}"
            );
        }
        assert!(message(r#"{"a.b":1}"#, 4).contains("`a.b`"));
    }

    #[test]
    fn hostile_names_are_shown_escaped_and_cut() {
        let found = message(r#"{"\u001b[2J":1}"#, 4);
        assert!(!found.contains('\u{1b}'), "{found:?}");
        let long = entry(&"x".repeat(100_000), "F32", "[3]", 0, 4);
        assert!(message(&format!("{{{long}}}"), 4).len() < 600);
    }
}
