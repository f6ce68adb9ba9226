//! The model shapes of the performance tables, without query and key norm.

use foretoken::model::Config;

/// A model's sizes and its training batch.
#[derive(Clone, Copy)]
pub struct Shape {
    /// As the tables call it.
    pub name: &'static str,
    /// V, C, layers, heads, F
    sizes: [usize; 5],
    /// T and B
    #[allow(dead_code)] // decoding has no batch
    pub batch: [usize; 2],
}

const fn shape(name: &'static str, sizes: [usize; 5], batch: [usize; 2]) -> Shape {
    Shape { name, sizes, batch }
}

/// All of them.
pub const SHAPES: [Shape; 4] = [
    shape("tiny", [256, 128, 4, 4, 344], [128, 16]),
    shape("small", [4096, 256, 6, 8, 688], [256, 16]),
    shape("base", [4096, 512, 8, 8, 1376], [256, 8]),
    shape("110m", [32000, 768, 12, 12, 2048], [256, 4]),
];

impl Shape {
    /// With K sequential heads.
    pub fn config(&self, depth: usize) -> Config {
        let [vocab, c, layers, heads, f] = self.sizes;
        let text = format!(
            r#"{{"vocab_size": {vocab}, "hidden_size": {c}, "intermediate_size": {f}, "num_hidden_layers": {layers},
                "num_attention_heads": {heads}, "num_key_value_heads": {heads}, "head_dim": {}, "mtp_depth": {depth},
                "mtp_kind": "sequential", "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
                "tie_word_embeddings": true}}"#,
            c / heads
        );
        let mut config: Config = serde_json::from_str(&text).expect("a config");
        config.set_head_width(c);
        config
    }
}

/// The middle one.
pub fn median(x: &mut [f64]) -> f64 {
    x.sort_by(f64::total_cmp);
    x[x.len() / 2]
}

/// The value of `name=value` among the arguments.
pub fn number(name: &str) -> Option<usize> {
    let value =
        std::env::args().find_map(|a| a.strip_prefix(name)?.strip_prefix('=').map(String::from))?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name}={value}: expected a number")),
    )
}
