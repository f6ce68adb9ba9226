//! The configuration of a model, with the key names of the public Qwen3 and Llama checkpoints.

use super::HeadKind;
use crate::kernels::attention::AttentionHeads;
use crate::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize};

/// The version of the arithmetic. Models and runs of different versions need not agree to the bit.
pub const ARITHMETIC_VERSION: u32 = 1;

/// The configuration of a model. [`Config::check`] is called when a model is made; code inside trusts the sizes.
///
/// Reading a `config.json` takes more than deserialising it: see [`Config::read_keys`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// V, size of the vocabulary.
    pub vocab_size: usize,
    /// C, size of the hidden state.
    pub hidden_size: usize,
    /// F, width of a layer's gated MLP.
    pub intermediate_size: usize,
    /// L, number of layers of the trunk.
    pub num_hidden_layers: usize,
    /// H, number of attention heads (query heads).
    pub num_attention_heads: usize,
    /// G, number of key and value heads; a divisor of H.
    #[serde(default, deserialize_with = "or_zero")]
    pub num_key_value_heads: usize,
    /// D, size of an attention head; even.
    #[serde(default, deserialize_with = "or_zero")]
    pub head_dim: usize,
    /// Number of positions that the model may run on.
    pub max_position_embeddings: usize,
    /// ε of every RMSNorm.
    pub rms_norm_eps: f64,
    /// θ of the rotary embedding (RoPE).
    #[serde(default)]
    pub rope_theta: f64,
    /// Whether the LM head is the embedding matrix.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Whether query and key heads are normalised before RoPE.
    #[serde(default)]
    pub use_qk_norm: bool,
    /// Whether q, k and v have a bias; must be false.
    #[serde(default)]
    pub attention_bias: bool,
    /// Kind of the prediction heads.
    #[serde(default = "default_kind")]
    pub mtp_kind: HeadKind,
    /// K, number of prediction heads.
    #[serde(default)]
    pub mtp_depth: usize,
    /// c, width of a head's block, or the rank of the factorisation of a `medusa` layer; C for a full-width head.
    #[serde(default)]
    pub mtp_hidden_size: usize,
    /// Width of a head's gated MLP; unused by `medusa`, which has none.
    #[serde(default)]
    pub mtp_intermediate_size: usize,
    /// T, tokens of a training sequence; 0 if unknown.
    #[serde(default)]
    pub training_context: usize,
    /// Version of the arithmetic that the model was made with.
    #[serde(default)]
    pub foretoken_arithmetic: u32,
}

fn default_kind() -> HeadKind {
    HeadKind::Recursive
}

/// A size that may be `null`.
fn or_zero<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<usize, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Named sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Preset {
    /// C 128, L 4, H 4, F 352; context 128.
    Tiny,
    /// C 256, L 6, H 8, F 704; context 256.
    Small,
    /// C 512, L 8, H 8, F 1376; context 256.
    Base,
}

names!(Preset {
    Tiny = "tiny",
    Small = "small",
    Base = "base"
});

impl Preset {
    /// T, tokens of a training sequence.
    pub fn context(self) -> usize {
        match self {
            Self::Tiny => 128,
            Self::Small | Self::Base => 256,
        }
    }

    /// The configuration, with K = `num_heads` heads of a quarter of the width: only cheap heads make drafting faster.
    pub fn config(self, vocab_size: usize, kind: HeadKind, num_heads: usize) -> Config {
        let (c, l, h, f) = match self {
            Self::Tiny => (128, 4, 4, 352),
            Self::Small => (256, 6, 8, 704),
            Self::Base => (512, 8, 8, 1376),
        };
        let mut config = Config {
            vocab_size,
            hidden_size: c,
            intermediate_size: f,
            num_hidden_layers: l,
            num_attention_heads: h,
            num_key_value_heads: h,
            head_dim: c / h,
            max_position_embeddings: 2048,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            tie_word_embeddings: true,
            use_qk_norm: true,
            attention_bias: false,
            mtp_kind: kind,
            mtp_depth: num_heads,
            mtp_hidden_size: 0,
            mtp_intermediate_size: 0,
            training_context: self.context(),
            foretoken_arithmetic: ARITHMETIC_VERSION,
        };
        config.set_head_width(c / 4);
        config
    }
}

impl Config {
    /// Gives the heads the width `c`, and a gated MLP narrowed in proportion and rounded up to a multiple of 16.
    pub fn set_head_width(&mut self, c: usize) {
        self.mtp_hidden_size = c;
        // Widths that overflow saturate, and [`Config::check`] refuses them.
        let narrow = self.intermediate_size.saturating_mul(c) / self.hidden_size.max(1);
        self.mtp_intermediate_size = if self.mtp_kind == HeadKind::Medusa {
            0
        } else if c == self.hidden_size {
            self.intermediate_size
        } else {
            narrow.checked_next_multiple_of(16).unwrap_or(usize::MAX)
        };
    }

    /// Whether heads are narrower than the trunk, with projections around them.
    pub fn is_narrow(&self) -> bool {
        self.mtp_hidden_size != self.hidden_size
    }

    /// The default length of an evaluation sequence in tokens: that of training, if known.
    pub fn default_context(&self) -> usize {
        match self.training_context {
            0 => self.max_position_embeddings.min(256),
            t => t.min(self.max_position_embeddings),
        }
    }

    /// Attention heads of a trunk layer.
    pub fn attention_heads(&self) -> AttentionHeads {
        AttentionHeads {
            num_heads: self.num_attention_heads,
            num_kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
        }
    }

    /// Attention heads of a prediction head's block: the trunk's size D, and fewer in proportion to the width.
    pub fn mtp_attention_heads(&self) -> AttentionHeads {
        if self.mtp_hidden_size == self.hidden_size {
            return self.attention_heads();
        }
        let num_heads = (self.mtp_hidden_size / self.head_dim).max(1);
        let max = (self.num_key_value_heads * num_heads / self.num_attention_heads).max(1);
        let num_kv_heads = (1..=max).rev().find(|g| num_heads.is_multiple_of(*g));
        AttentionHeads {
            num_heads,
            num_kv_heads: num_kv_heads.unwrap_or(1),
            head_dim: self.head_dim,
        }
    }

    /// Checks that all sizes are in range and consistent.
    ///
    /// # Errors
    /// Returns [`Error::Config`] with the first field that is not.
    pub fn check(&self) -> Result<()> {
        let positions = self.max_position_embeddings;
        let sizes = [
            ("vocab_size", self.vocab_size, 1 << 24),
            ("hidden_size", self.hidden_size, 1 << 16),
            ("intermediate_size", self.intermediate_size, 1 << 18),
            ("num_hidden_layers", self.num_hidden_layers, 1 << 10),
            ("num_attention_heads", self.num_attention_heads, 1 << 10),
            ("num_key_value_heads", self.num_key_value_heads, 1 << 10),
            ("head_dim", self.head_dim, 1 << 10),
            ("max_position_embeddings", positions, 1 << 20),
        ];
        for (field, size, max) in sizes {
            let range = format!("1 to {max}");
            require(field, (1..=max).contains(&size), &range, size)?;
        }
        let (h, g) = (self.num_attention_heads, self.num_key_value_heads);
        let divisor = format!("a divisor of num_attention_heads ({h})");
        require("num_key_value_heads", h.is_multiple_of(g), &divisor, g)?;
        let d = self.head_dim;
        require("head_dim", d.is_multiple_of(2), "an even size", d)?;
        let (eps, range) = (self.rms_norm_eps, "a number between 0 and 1");
        require("rms_norm_eps", eps > 0.0 && eps < 1.0, range, eps)?;
        let (theta, range) = (self.rope_theta, "a number from 1 to 1e12");
        require("rope_theta", (1.0..=1e12).contains(&theta), range, theta)?;
        let bias = self.attention_bias;
        require("attention_bias", !bias, "false", bias)?;
        let k = self.mtp_depth;
        require("mtp_depth", k <= 64, "0 to 64 heads", k)?;
        if k == 0 {
            return Ok(());
        }
        self.check_head_width()
    }

    /// Checks the widths of the heads, if there are heads.
    fn check_head_width(&self) -> Result<()> {
        let (c, d) = (self.mtp_hidden_size, self.head_dim);
        let max = self.hidden_size;
        // Without attention the width need not be a multiple of D.
        let (fits, widths) = match self.mtp_kind {
            HeadKind::Medusa => ((1..=max).contains(&c), format!("1 to hidden_size ({max})")),
            _ => (
                c == max || (c > 0 && c < max && c.is_multiple_of(d)),
                format!("hidden_size ({max}) or a smaller multiple of head_dim ({d})"),
            ),
        };
        require("mtp_hidden_size", fits, &widths, c)?;
        let f = self.mtp_intermediate_size;
        let fits = self.mtp_kind == HeadKind::Medusa || (1..=1 << 18).contains(&f);
        require("mtp_intermediate_size", fits, "1 to 262144", f)
    }
}

pub(super) fn require(
    field: &str,
    holds: bool,
    expected: &str,
    found: impl std::fmt::Display,
) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::Config {
        field: field.to_owned(),
        expected: expected.to_owned(),
        found: found.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_valid() {
        for preset in Preset::ALL {
            for kind in HeadKind::ALL {
                preset.config(257, kind, 3).check().expect("a valid preset");
            }
        }
    }

    #[test]
    fn every_wrong_field_is_named() {
        type Spoil = fn(&mut Config);
        let wrong: [(&str, Spoil); 12] = [
            ("vocab_size", |c| c.vocab_size = 0),
            ("hidden_size", |c| c.hidden_size = 0),
            ("hidden_size", |c| c.hidden_size = usize::MAX),
            ("num_hidden_layers", |c| c.num_hidden_layers = 0),
            ("num_key_value_heads", |c| c.num_key_value_heads = 3),
            ("head_dim", |c| c.head_dim = 5),
            ("max_position_embeddings", |c| c.max_position_embeddings = 0),
            ("rms_norm_eps", |c| c.rms_norm_eps = f64::NAN),
            ("rope_theta", |c| c.rope_theta = -1.0),
            ("attention_bias", |c| c.attention_bias = true),
            ("mtp_depth", |c| c.mtp_depth = 65),
            ("mtp_hidden_size", |c| c.mtp_hidden_size = 33),
        ];
        for (field, spoil) in wrong {
            let mut config = Preset::Tiny.config(257, HeadKind::Recursive, 3);
            spoil(&mut config);
            let error = config.check().expect_err(field).to_string();
            assert!(error.contains(&format!("`{field}`")), "{error}");
        }
    }

    /// A head without attention has no head size to be a multiple of, and no gated MLP.
    #[test]
    fn a_medusa_head_may_have_any_width_up_to_the_trunks() {
        for (width, fits) in [(0, false), (1, true), (33, true), (128, true), (129, false)] {
            let mut config = Preset::Tiny.config(257, HeadKind::Medusa, 3);
            config.set_head_width(width);
            assert_eq!(config.check().is_ok(), fits, "{width}");
            config.mtp_kind = HeadKind::Parallel;
            let error = config.check().expect_err("no gated layer").to_string();
            let field = if width == 128 {
                "mtp_intermediate_size"
            } else {
                "mtp_hidden_size"
            };
            assert!(error.contains(field), "{error}");
        }
    }

    #[test]
    fn a_config_survives_json() {
        let config = Preset::Small.config(4096, HeadKind::Parallel, 2);
        let text = serde_json::to_string(&config).expect("plain data");
        assert_eq!(
            serde_json::from_str::<Config>(&text).expect("its own text"),
            config
        );
    }
}
