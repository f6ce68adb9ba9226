use std::fs;
use std::io::{Seek, Write};

use proptest::prelude::*;

use super::*;
use crate::checkpoint::encode::encode;
use crate::checkpoint::encode::tests::{by_hand, small};

fn file(bytes: &[u8]) -> Result<TensorFile> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    TensorFile::read_from(Path::new("m.safetensors"), file, bytes.len() as u64)
}

/// Does whatever can be done with a file. None of it may panic.
fn exercise(bytes: &[u8]) {
    let Ok(mut file) = file(bytes) else { return };
    let shapes: Vec<_> = file
        .tensors
        .iter()
        .map(|(name, info)| (name.clone(), info.shape.clone()))
        .collect();
    for (name, shape) in shapes {
        if let Ok(values) = file.take(&name, &shape) {
            assert_eq!(values.len(), shape.iter().product::<usize>());
        }
    }
    let _ = file.finish();
}

#[test]
fn what_was_written_is_read_to_the_bit() {
    let bits = [0, 0x8000_0000, 1, 0x7f7f_ffff, 0x0080_0000, 0x3f80_0001];
    let values = bits.map(f32::from_bits);
    let bytes = encode(&[("x", &[3, 2], &values), ("none", &[0, 4], &[])]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.safetensors");
    fs::write(&path, bytes).unwrap();

    let mut file = TensorFile::open(&path).unwrap();
    assert_eq!(file.names().collect::<Vec<_>>(), ["none", "x"]);
    let read = file.take("x", &[3, 2]).unwrap();
    assert_eq!(
        read.iter().map(|value| value.to_bits()).collect::<Vec<_>>(),
        bits
    );
    assert!(file.take("none", &[0, 4]).unwrap().is_empty());
    file.finish().unwrap();
}

#[test]
fn types_are_widened_or_refused_by_name() {
    let read = |dtype: &str, size: usize, data: &[u8]| {
        let end = size * 2;
        let header =
            format!(r#"{{"w":{{"dtype":"{dtype}","shape":[2],"data_offsets":[0,{end}]}}}}"#);
        file(&by_hand(&header, data)).unwrap().take("w", &[2])
    };
    // 1 and -2: 0x3f80 and 0xc000 in bf16, 0x3c00 and 0xc000 in f16.
    assert_eq!(
        read("BF16", 2, &[0x80, 0x3f, 0, 0xc0]).unwrap(),
        [1.0, -2.0]
    );
    assert_eq!(read("F16", 2, &[0, 0x3c, 0, 0xc0]).unwrap(), [1.0, -2.0]);
    for (dtype, size) in [
        ("F64", 8),
        ("I32", 4),
        ("U8", 1),
        ("F8_E4M3", 1),
        ("I16", 2),
    ] {
        let message = read(dtype, size, &vec![0; 2 * size])
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("`w`") && message.contains(&format!("found {dtype}")),
            "{message}"
        );
    }
    for (dtype, data, value) in [
        ("BF16", vec![0, 0, 0x80, 0xff], "-inf"),
        ("F16", vec![0, 0, 0x01, 0x7c], "NaN"),
        ("F32", vec![0, 0, 0, 0, 0, 0, 0x80, 0x7f], "inf"),
    ] {
        let message = read(dtype, data.len() / 2, &data).unwrap_err().to_string();
        assert!(
            message.contains(&format!("{value} at index 1 of 2")),
            "{message}"
        );
    }
}

#[test]
fn take_and_finish_name_file_tensor_and_what_was_found() {
    let mut open = file(&small()).unwrap();
    for (name, shape, reason) in [
        (
            "b.weight",
            &[1, 2][..],
            "expected shape [1, 2], found [2, 1]",
        ),
        ("b.weight", &[2], "found [2, 1]"),
        ("c", &[7], "expected shape [7], the tensor is missing"),
    ] {
        let message = open.take(name, shape).unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("m.safetensors: tensor `{name}`: ")),
            "{message}"
        );
        assert!(message.ends_with(reason), "{message}");
    }
    open.take("a", &[]).unwrap();
    let message = open.finish().unwrap_err().to_string();
    assert!(
        message.contains("`b.weight`") && !message.contains("`a`"),
        "{message}"
    );

    let many = ["a", "b", "c", "d", "e"].map(|name| (name, &[][..], &[0.0][..]));
    let message = file(&encode(&many).unwrap())
        .unwrap()
        .finish()
        .unwrap_err()
        .to_string();
    assert!(message.ends_with("`a`, `b`, `c` and 2 more"), "{message}");
}

/// The layout is compared before any data is read: here there are no data, in a file that claims 4 TiB of them.
#[test]
fn names_shapes_and_types_are_compared_before_data_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sparse.safetensors");
    let n = 1u64 << 40;
    let entry = |name: &str, from: u64| {
        format!(
            r#""{name}":{{"dtype":"F32","shape":[{n}],"data_offsets":[{from},{}]}}"#,
            from + 4 * n
        )
    };
    let header = by_hand(&format!("{{{},{}}}", entry("a", 0), entry("b", 4 * n)), &[]);
    fs::write(&path, &header).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    if file.set_len(header.len() as u64 + 8 * n).is_err() {
        println!("skipped: the file system has no sparse files of 8 TiB");
        return;
    }
    let open = TensorFile::open(&path).unwrap();
    let big = [1 << 40];
    let message = |layout: &[(&str, &[usize])]| {
        let error = open.expect(layout.iter().copied()).unwrap_err();
        error.to_string()
    };
    assert!(open.expect([("a", &big[..]), ("b", &big)]).is_ok());
    assert!(
        message(&[("a", &big), ("b", &[3])]).ends_with("expected shape [3], found [1099511627776]")
    );
    assert!(message(&[("a", &big), ("b", &big), ("c", &[1])]).contains("`c`"));
    assert!(message(&[("a", &big)]).ends_with("does not have: `b`"));
}

#[test]
fn long_shapes_are_cut() {
    assert_eq!(shown_shape(&[]), "[]");
    assert_eq!(shown_shape(&[1; 8]), "[1, 1, 1, 1, 1, 1, 1, 1]");
    let long = shown_shape(&[1; 9]);
    assert_eq!(long, "[1, 1, 1, 1, 1, 1, 1, 1, ...] of 9 dimensions");
}

/// The value of a small float as IEEE 754-2008 (section 3.4) defines it; none for what is not finite.
fn defined(bits: u16, fraction_bits: u32, bias: i32) -> Option<f64> {
    // By exact doublings and halvings: f64 has room for all values of both formats.
    let scaled = |m: u16, e: i32| {
        let factor = if e < 0 { 0.5 } else { 2.0 };
        (0..e.abs()).fold(f64::from(m), |value, _| value * factor)
    };
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let greatest = (1u16 << (15 - fraction_bits)) - 1;
    let exponent = (bits >> fraction_bits) & greatest;
    let fraction = bits & ((1 << fraction_bits) - 1);
    let f = fraction_bits as i32;
    match exponent {
        e if e == greatest => None,
        0 => Some(sign * scaled(fraction, 1 - bias - f)),
        e => Some(sign * scaled(fraction + (1 << fraction_bits), i32::from(e) - bias - f)),
    }
}

#[test]
fn every_half_has_its_defined_value() {
    // Greatest normal, least normal and least subnormal binary16 (IEEE 754-2008, table 3.5): 65504, 2^-14, 2^-24.
    assert_eq!(defined(0x7bff, 10, 15), Some(65504.0));
    assert_eq!(defined(0x0400, 10, 15), Some(1.0 / 16384.0));
    assert_eq!(defined(0x8001, 10, 15), Some(-1.0 / 16_777_216.0));
    for (dtype, fraction_bits, bias) in [("BF16", 7, 127), ("F16", 10, 15)] {
        let defined = |bits: &u16| defined(*bits, fraction_bits, bias);
        let finite: Vec<u16> = (0..=u16::MAX)
            .filter(|bits| defined(bits).is_some())
            .collect();
        let (n, data) = (
            finite.len(),
            finite.iter().flat_map(|bits| bits.to_le_bytes()),
        );
        let header = format!(
            r#"{{"w":{{"dtype":"{dtype}","shape":[{n}],"data_offsets":[0,{}]}}}}"#,
            2 * n
        );
        let bytes = by_hand(&header, &data.collect::<Vec<_>>());
        let values = file(&bytes).unwrap().take("w", &[n]).unwrap();
        for (bits, found) in finite.iter().zip(values) {
            // Bits and not values, so that -0 differs from +0.
            let expected = defined(bits).map(f64::to_bits);
            assert_eq!(
                Some(f64::from(found).to_bits()),
                expected,
                "{dtype} {bits:#06x}"
            );
        }
    }
}

#[test]
fn every_truncation_and_every_extension_is_an_error() {
    let whole = small();
    assert!(file(&whole).is_ok());
    for len in 0..whole.len() {
        assert!(
            file(&whole[..len]).is_err(),
            "{len} of {} bytes",
            whole.len()
        );
    }
    assert!(file(&[&whole[..], &[0]].concat()).is_err());
}

#[test]
fn no_single_byte_of_the_header_can_cause_a_panic() {
    let whole = small();
    for i in 0..whole.len() - 12 {
        for flip in 1..=255 {
            let mut bytes = whole.clone();
            bytes[i] ^= flip;
            exercise(&bytes);
        }
    }
}

#[test]
fn a_claim_is_compared_with_the_real_size_before_more_is_read() {
    // Panics if more than the given bytes are read, as a reader that allocates by the claim would do.
    struct Only<'a>(&'a [u8]);
    impl Read for Only<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            assert!(!self.0.is_empty(), "asked for {} bytes more", into.len());
            self.0.read(into)
        }
    }
    let refused = |bytes: &[u8], len| {
        let path = Path::new("m");
        let read = read_header(path, &mut Only(bytes), len)
            .and_then(|(header, start)| header::parse(path, &header, len - start));
        read.unwrap_err().to_string()
    };
    for claim in [13, 99_000_000, 1 << 40, u64::MAX - 7, u64::MAX] {
        let message = refused(&claim.to_le_bytes(), 20);
        assert!(
            message.contains(&format!("header of {claim} bytes")),
            "{message}"
        );
    }
    let message = refused(&(1u64 << 40).to_le_bytes(), 1 << 41);
    assert!(message.contains("at most 100000000"), "{message}");
    // A tensor of 4 TiB in a file of some hundred bytes.
    let end = 1u64 << 42;
    let shape = 1u64 << 40;
    let header = format!(r#"{{"w":{{"dtype":"F32","shape":[{shape}],"data_offsets":[0,{end}]}}}}"#);
    let bytes = by_hand(&header, &[]);
    let message = refused(&bytes, bytes.len() as u64 + 4);
    assert!(
        message.contains(&format!("need {end} bytes of data, found 4")),
        "{message}"
    );
}

#[test]
fn wrong_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.safetensors");
    assert!(matches!(TensorFile::open(&missing), Err(Error::Io { path, .. }) if path == missing));
    assert!(
        matches!(TensorFile::open(dir.path()), Err(Error::File { path, .. }) if path == dir.path())
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn no_few_bytes_can_cause_a_panic(
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut bytes = small();
        for (place, byte) in places {
            let i = place.index(bytes.len());
            bytes[i] = byte;
        }
        exercise(&bytes);
    }
}
