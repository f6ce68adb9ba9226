//! Small models: random ones, and one of each kind that has learnt something.

use foretoken::data::{Batch, RandomWindows, Tokenizer, corpus};
use foretoken::model::{Config, HeadKind, JointLoss, Model, WeightFormat};
use foretoken::train::{Optimiser, TrainConfig, Trainer};
use std::sync::OnceLock;

/// K of the trained models.
const DEPTH: usize = 6;

pub fn config(kind: HeadKind, depth: usize, width: usize) -> Config {
    let text = format!(
        r#"{{"vocab_size": 257, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 160,
            "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": true, "use_qk_norm": true,
            "mtp_kind": "{}", "mtp_depth": {depth}}}"#,
        kind.name()
    );
    let mut config: Config = serde_json::from_str(&text).expect("a config");
    config.set_head_width(width);
    config
}

/// Nothing learnt; narrow or full width, packed or not and in which format, by seed.
pub fn random_model(kind: HeadKind, depth: usize, seed: u64) -> Model {
    let width = if seed.is_multiple_of(2) { 8 } else { 32 };
    let mut model = Model::new(config(kind, depth, width), seed).expect("valid sizes");
    if seed.is_multiple_of(3) {
        model.pack(WeightFormat::ALL[seed as usize / 3 % 3]);
    }
    model
}

/// The same model with its first `depth` heads only.
pub fn cut(model: &Model, depth: usize) -> Model {
    let mut config = model.config().clone();
    config.mtp_depth = depth;
    let take = |name: &str, _: &[usize]| {
        let id = model.params().find(name).expect("a smaller model's tensor");
        Ok(model.params().get(id).values().into_owned())
    };
    Model::from_parts(config, take).expect("valid sizes")
}

/// One small model of each kind that has learnt enough for its heads to be right now and then.
pub fn trained_model(kind: HeadKind) -> &'static Model {
    static MODELS: OnceLock<Vec<(HeadKind, Model)>> = OnceLock::new();
    let models = MODELS.get_or_init(|| HeadKind::ALL.map(|kind| (kind, train(kind))).into());
    let found = models.iter().find(|(k, _)| *k == kind);
    &found.expect("every kind was trained").1
}

fn train(kind: HeadKind) -> Model {
    let text = corpus::stories(5, 100_000);
    let tokens = Tokenizer::bytes().encode(text.as_bytes()).expect("bytes");
    let windows = RandomWindows::new(tokens, 48, 8, 3).expect("enough text");
    let model = Model::new(config(kind, DEPTH, 32), 9).expect("valid sizes");
    let mut config = TrainConfig::default();
    config.optimiser = Optimiser::ADAMW;
    let mut trainer = Trainer::new(model, config).expect("a valid configuration");
    for step in 0..150 {
        let batch: Batch = windows.batch(step).expect("in memory");
        trainer
            .step(&batch, JointLoss::default(), 5e-3)
            .expect("finite losses");
    }
    trainer.into_model()
}
