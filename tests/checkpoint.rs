//! A model directory may come from anywhere: loading returns a model that can be run, or an error that names the file,
//! whatever the files hold. Weights are replaced whole, also while another process reads them.

use foretoken::Error;
use foretoken::checkpoint::{ModelDir, TensorFile, encode};
use foretoken::data::Tokenizer;
use foretoken::infer::{GenerateOptions, HeadDrafter, generate};
use foretoken::model::{HeadKind, Model, Preset, WeightFormat};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

const FILES: [&str; 3] = ["config.json", "tokenizer.json", "model.safetensors"];

fn small(kind: HeadKind, seed: u64) -> Model {
    let mut config = Preset::Tiny.config(257, kind, 2);
    (config.hidden_size, config.intermediate_size) = (8, 16);
    (config.num_hidden_layers, config.head_dim) = (1, 4);
    (config.num_attention_heads, config.num_key_value_heads) = (2, 1);
    config.set_head_width(4);
    Model::new(config, seed).expect("valid sizes")
}

/// A directory with a small model in a temporary folder.
fn saved(kind: HeadKind) -> (tempfile::TempDir, ModelDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (path, model) = (folder.path().join("m"), small(kind, 1));
    let dir = ModelDir::create(&path, &model, &Tokenizer::bytes(), false);
    (folder, dir.expect("a directory"))
}

/// The three files of a valid directory, as in [`FILES`].
static SOUND: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| {
    let (_folder, dir) = saved(HeadKind::Recursive);
    FILES.map(|file| fs::read(dir.path().join(file)).expect("a file"))
});

/// Loads a directory that holds these files. A model that loads is run; an error names one of the files by its path.
fn load(files: [&[u8]; 3]) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, bytes) in FILES.iter().zip(files) {
        fs::write(folder.path().join(name), bytes).expect("a file");
    }
    load_dir(folder.path())
}

fn load_dir(dir: &Path) -> Result<(), String> {
    let error = match ModelDir::load(dir) {
        Ok((model, tokenizer)) => {
            run(model, &tokenizer);
            return Ok(());
        }
        Err(error) => error,
    };
    let message = error.to_string();
    let named = FILES
        .iter()
        .any(|file| message.contains(&*dir.join(file).to_string_lossy()));
    assert!(named, "names no file: {message}");
    let fit = message.len() < 1000 && !message.contains(char::is_control);
    assert!(fit, "not fit for a terminal: {message:?}");
    Err(message)
}

/// Runs what was loaded: it generates tokens, or reports logits that are not finite.
fn run(mut model: Model, tokenizer: &Tokenizer) {
    model.pack(WeightFormat::F32);
    let options = GenerateOptions {
        max_tokens: 5,
        ..GenerateOptions::default()
    };
    // The model may have more tokens than its vocabulary spells.
    let vocab = model.config().vocab_size;
    // A vocabulary need not spell every byte.
    let Ok(prompt) = tokenizer.encode(b"ab") else {
        return;
    };
    match generate(&model, &prompt, &options, &mut HeadDrafter) {
        Ok(generated) => assert!(generated.tokens.iter().all(|t| (*t as usize) < vocab)),
        // Weights may be too large for any logit; a model may have a single position.
        Err(Error::NotFinite(_) | Error::Setting { .. }) => {}
        Err(other) => panic!("{other}"),
    }
}

fn valid() -> [&'static [u8]; 3] {
    [&SOUND[0], &SOUND[1], &SOUND[2]]
}

/// A place in a file: anywhere, or among its first bytes, where a safetensors file has its header.
#[derive(Clone, Debug)]
struct Place(bool, Index);

impl Place {
    fn at(&self, bytes: &[u8]) -> usize {
        let all = bytes.len().max(1);
        self.1.index(if self.0 { all.min(2500) } else { all })
    }
}

/// A change of a file's bytes.
#[derive(Clone, Debug)]
enum Change {
    Overwrite(Place, Vec<u8>),
    Insert(Place, Vec<u8>),
    Remove(Place, usize),
    Truncate(Place),
    /// A number as text, in the place of the number that starts there or later.
    Number(Place, String),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Overwrite(place, new) => {
                let at = place.at(bytes);
                for (old, new) in bytes[at..].iter_mut().zip(new) {
                    *old = *new;
                }
            }
            Self::Insert(place, new) => {
                let at = place.at(bytes);
                bytes.splice(at..at, new.iter().copied());
            }
            Self::Remove(place, count) => {
                let at = place.at(bytes);
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Self::Truncate(place) => bytes.truncate(place.at(bytes)),
            Self::Number(place, text) => {
                let digit = |b: &u8| b.is_ascii_digit();
                let at = place.at(bytes);
                let start = bytes[at..]
                    .iter()
                    .position(digit)
                    .map_or(bytes.len(), |i| at + i);
                let len = bytes[start..].iter().take_while(|b| digit(b)).count();
                bytes.splice(start..start + len, text.bytes());
            }
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let place = || (any::<bool>(), any::<Index>()).prop_map(|(early, index)| Place(early, index));
    let some = || prop::collection::vec(any::<u8>(), 1..9);
    let number = prop_oneof![
        any::<u64>().prop_map(|n| n.to_string()),
        any::<u8>().prop_map(|n| n.to_string()),
        (0..70u32).prop_map(|n| (1_u128 << n).to_string()),
        any::<f64>().prop_map(|x| format!("{x:e}")),
        "-[0-9]|\"[0-9]\"|null|true|\\[\\]|1e999",
    ];
    prop_oneof![
        (place(), any::<u8>()).prop_map(|(place, byte)| Change::Overwrite(place, vec![byte])),
        (place(), some()).prop_map(|(place, bytes)| Change::Overwrite(place, bytes)),
        (place(), "[ -~\\x00\\n\"{}\\[\\],:0-9]{1,3}")
            .prop_map(|(place, text)| Change::Overwrite(place, text.into_bytes())),
        (place(), some()).prop_map(|(place, bytes)| Change::Insert(place, bytes)),
        (place(), 1..40usize).prop_map(|(place, count)| Change::Remove(place, count)),
        place().prop_map(Change::Truncate),
        (place(), number).prop_map(|(place, text)| Change::Number(place, text)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    #[test]
    fn no_bytes_of_a_directory_can_cause_a_panic(
        file in 0..FILES.len(),
        changes in prop::collection::vec(change(), 1..4),
    ) {
        let mut bytes = SOUND[file].clone();
        changes.iter().for_each(|change| change.apply(&mut bytes));
        let mut files = valid();
        files[file] = &bytes;
        if let Err(message) = load(files) {
            // A config may be valid alone and not fit the other files, which are then the ones named.
            let expected = if file == 0 { "" } else { FILES[file] };
            prop_assert!(message.contains(expected), "{expected}: {message}");
        }
    }

    #[test]
    fn no_bytes_of_a_tensor_file_can_cause_a_panic(changes in prop::collection::vec(change(), 1..4)) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("odd.safetensors");
        let mut bytes = SOUND[2].clone();
        changes.iter().for_each(|change| change.apply(&mut bytes));
        fs::write(&path, &bytes).expect("a file");
        let taken = TensorFile::open(&path).and_then(|mut file| {
            for (name, tensor) in small(HeadKind::Recursive, 1).params().iter() {
                let values = file.take(name, tensor.shape())?;
                assert!(values.iter().all(|x| x.is_finite()) && values.len() == tensor.data().len());
            }
            file.finish()
        });
        if let Err(error) = taken {
            prop_assert!(error.to_string().contains("odd.safetensors"), "{error}");
        }
    }
}

/// A config with some fields changed, next to the valid weights and tokenizer.
fn load_config(fields: &[(&str, Value)]) -> Result<(), String> {
    let mut config: Value = serde_json::from_slice(&SOUND[0]).expect("JSON");
    for (field, value) in fields {
        config[*field] = value.clone();
    }
    let text = config.to_string();
    let mut files = valid();
    files[0] = text.as_bytes();
    load(files)
}

/// `tests/cli` runs the program on such claims with too little memory for any of them.
#[test]
fn absurd_sizes_beside_small_weights_are_an_error() {
    assert_eq!(load_config(&[]), Ok(()));
    for (field, max) in [
        ("vocab_size", 1 << 24),
        ("hidden_size", 1 << 16),
        ("intermediate_size", 1 << 18),
        ("num_hidden_layers", 1 << 10),
        ("num_attention_heads", 1 << 10),
        ("head_dim", 1 << 10),
        ("mtp_hidden_size", 8),
        ("mtp_intermediate_size", 1 << 18),
    ] {
        // The largest size that a model may have, and one more.
        load_config(&[(field, json!(max))]).expect_err(field);
        let message = load_config(&[(field, json!(max + 1))]).expect_err(field);
        assert!(
            message.contains("config.json") && message.contains(field),
            "{message}"
        );
    }
    let all = [
        ("vocab_size", json!(1 << 24)),
        ("hidden_size", json!(1 << 16)),
        ("num_hidden_layers", json!(1 << 10)),
    ];
    load_config(&all).expect_err("all at once");
    let message = load_config(&all[1..]).expect_err("with the tokenizer's vocabulary");
    assert!(
        message.contains("model.safetensors") && message.contains("65536"),
        "{message}"
    );
    // These claim nothing about the weights, so they are valid; running them must not be sized by them either.
    assert_eq!(
        load_config(&[("max_position_embeddings", json!(1 << 20))]),
        Ok(())
    );
    assert_eq!(
        load_config(&[("training_context", json!(u64::MAX))]),
        Ok(())
    );
    assert_eq!(load_config(&[("mtp_depth", json!(64))]), Ok(()));
    assert_eq!(
        load_config(&[("max_position_embeddings", json!(1))]),
        Ok(())
    );
}

#[test]
fn tensors_are_exactly_the_models() {
    for kind in HeadKind::ALL {
        let (_folder, dir) = saved(kind);
        let weights = dir.path().join("model.safetensors");
        let model = small(kind, 1);
        let all = model.params().iter();
        let tensors: Vec<_> = all.map(|(name, t)| (name, t.shape(), t.data())).collect();
        let attempt = |tensors: &[(&str, &[usize], &[f32])]| {
            fs::write(&weights, encode(tensors).expect("finite")).expect("a file");
            load_dir(dir.path())
        };
        assert_eq!(attempt(&tensors), Ok(()));
        for (i, (name, shape, data)) in tensors.iter().enumerate() {
            let named = |message: Result<(), String>, reason: &str| {
                let message = message.expect_err(reason);
                assert!(
                    message.contains(&format!("`{name}`")) && message.contains(reason),
                    "{message}"
                );
            };
            let mut other = tensors.clone();
            other.remove(i);
            named(attempt(&other), "missing");
            other.push((name, &[], &[0.5]));
            named(attempt(&other), "found []");
            let turned: Vec<usize> = shape.iter().rev().copied().chain([1]).collect();
            other[tensors.len() - 1] = (name, &turned, data);
            named(attempt(&other), &format!("expected shape {shape:?}"));
            if shape.len() == 2 && shape[0] != shape[1] {
                let swapped = [shape[1], shape[0]];
                other[tensors.len() - 1] = (name, &swapped, data);
                named(attempt(&other), &format!("found {swapped:?}"));
            }
        }
        for name in [
            "lm_head.weight",
            "mtp.modules.7.norm.weight",
            "a\u{1b}[2Jb",
            "",
        ] {
            let extra = [&tensors[..], &[(name, &[1], &[0.5])]].concat();
            let message = attempt(&extra).expect_err("a tensor too many");
            assert!(message.contains("does not have"), "{message}");
        }
    }
}

#[test]
fn other_files_lying_around_do_no_harm() {
    let (_folder, dir) = saved(HeadKind::Recursive);
    let stray = [
        "metrics.jsonl",
        "train_state.safetensors",
        ".model.safetensors.1.tmp",
        "model.safetensors.index.json",
        "README.md",
    ];
    for file in stray {
        fs::write(dir.path().join(file), b"\0not what its name says").expect("a file");
    }
    // Left by a killed process of the same number.
    let pid = std::process::id();
    let left = dir.path().join(format!(".model.safetensors.{pid}.tmp"));
    fs::write(&left, b"half").expect("a file");
    assert_eq!(load_dir(dir.path()), Ok(()));
    dir.save_weights(&small(HeadKind::Recursive, 2))
        .expect("a disk");
    assert!(!left.exists());
    assert_eq!(load_dir(dir.path()), Ok(()));
    fs::remove_file(dir.path().join("metrics.jsonl")).expect("a file");
    assert_eq!(load_dir(dir.path()), Ok(()));
}

#[test]
fn a_reader_meets_the_old_weights_or_the_new_ones() {
    let (_folder, dir) = saved(HeadKind::Recursive);
    let models = [small(HeadKind::Recursive, 1), small(HeadKind::Recursive, 2)];
    let path = dir.path().join("model.safetensors");
    let contents = models.each_ref().map(|model| {
        dir.save_weights(model).expect("a disk");
        fs::read(&path).expect("a file")
    });
    assert_ne!(contents[0], contents[1]);
    let met = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let met_both = || met.iter().all(|count| count.load(Ordering::Relaxed) > 100);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !met_both() {
                let found = fs::read(&path).expect("there is always a file");
                let which = contents.iter().position(|content| *content == found);
                let which = which.unwrap_or_else(|| panic!("{} bytes of neither", found.len()));
                met[which].fetch_add(1, Ordering::Relaxed);
            }
        });
        for model in models.iter().cycle() {
            dir.save_weights(model).expect("a disk");
            if reader.is_finished() {
                break;
            }
        }
    });
}

#[test]
fn weights_that_are_not_finite_never_replace_those_that_are() {
    let (_folder, dir) = saved(HeadKind::Recursive);
    let path = dir.path().join("model.safetensors");
    let before = fs::read(&path).expect("a file");
    for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut model = small(HeadKind::Recursive, 2);
        let id = model.params().find("model.norm.weight").expect("a tensor");
        model.params_mut().get_mut(id).data_mut()[3] = wrong;
        let error = dir.save_weights(&model).expect_err("not finite");
        let message = error.to_string();
        assert!(
            matches!(error, Error::NotFinite(_)) && message.contains("model.norm.weight"),
            "{message}"
        );
        assert!(fs::read(&path).expect("a file") == before);
    }
    let names = fs::read_dir(dir.path()).expect("a directory").count();
    assert_eq!(names, 4, "a temporary was left");
}
