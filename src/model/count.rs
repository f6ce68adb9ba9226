//! How large a model is, and how much it computes for a token.

use super::{Config, HeadKind, Model, layout};
use crate::kernels::attention::AttentionHeads;
use serde::Serialize;

/// Numbers of parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ParameterCounts {
    /// Parameters of the trunk, including the embedding and the LM head.
    pub trunk: usize,
    /// Parameters of the prediction heads alone.
    pub heads: usize,
    /// Parameters of the trunk that the heads use too: the LM head, and the embedding if heads read tokens.
    pub shared: usize,
}

/// Floating-point operations for one token; a multiply-add counts as two.
///
/// Included are the matrix multiplications with weights and the two of attention, at the mean number of keys in a
/// sequence of `context` tokens. Norms, activations, softmax, the loss and the optimiser are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Flops {
    /// T
    pub context: usize,
    /// Training on a token with all heads: the forward pass, and twice as much for the backward pass.
    pub train: u64,
    /// Decoding a token without drafts: the trunk and its logits row.
    pub decode: u64,
    /// A draft: one row of one head and its logits row.
    pub draft: u64,
}

impl Model {
    /// Numbers of parameters.
    pub fn parameter_counts(&self) -> ParameterCounts {
        let sum = |holds: &dyn Fn(&str) -> bool| -> usize {
            let named = self.params.iter().filter(|(name, _)| holds(name));
            named.map(|(_, t)| t.len()).sum()
        };
        let (config, heads) = (&self.config, sum(&layout::is_head));
        let embedding = config.vocab_size * config.hidden_size;
        let both = config.mtp_kind.chained() && !config.tie_word_embeddings;
        ParameterCounts {
            trunk: self.params.elements() - heads,
            heads,
            shared: match config.mtp_depth {
                0 => 0,
                _ if both => 2 * embedding,
                _ => embedding,
            },
        }
    }
}

impl Config {
    /// Operations per token in a sequence of T = `context` tokens.
    pub fn flops(&self, context: usize) -> Flops {
        let weights = |prefix: &str| -> f64 {
            let specs = layout::layout(self).into_iter();
            let matrices = specs.filter(|s| s.shape.len() == 2 && s.name.starts_with(prefix));
            matrices
                .map(|s| 2.0 * (s.shape[0] * s.shape[1]) as f64)
                .sum()
        };
        // q·k and e·v at every key; a sequence's positions see 1, 2, .., n keys.
        let attention = |heads: AttentionHeads, n: usize| {
            4.0 * (heads.num_heads * heads.head_dim) as f64 * (n as f64 + 1.0) / 2.0
        };
        let output = 2.0 * (self.vocab_size * self.hidden_size) as f64;
        let layers = self.num_hidden_layers as f64;
        let trunk =
            output + weights("model.layers.") + layers * attention(self.attention_heads(), context);
        let modules = match self.mtp_kind {
            HeadKind::Recursive => 1,
            _ => self.mtp_depth.max(1),
        };
        let module = output + weights("mtp.") / modules as f64;
        let head = |n: usize| {
            if self.mtp_kind.cached() {
                module + attention(self.mtp_attention_heads(), n)
            } else {
                module
            }
        };
        // Head k is trained on the T − k positions that have a target in the sequence.
        let rows = (1..=self.mtp_depth).map(|k| context.saturating_sub(k));
        let heads: f64 = rows.map(|n| head(n) * n as f64).sum();
        let has_heads = self.mtp_depth.min(1) as f64;
        Flops {
            context,
            train: (3.0 * (trunk + heads / context.max(1) as f64)).round() as u64,
            decode: trunk.round() as u64,
            draft: (has_heads * head(context)).round() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Preset;

    /// A cheap head is what makes drafting pay: on `base` with K = 3, each kind has a width for it.
    #[test]
    fn every_kind_has_a_narrow_width_of_one_to_three_percent() {
        for (kind, width) in [
            (HeadKind::Recursive, 128),
            (HeadKind::Sequential, 64),
            (HeadKind::Parallel, 64),
            (HeadKind::Medusa, 128),
        ] {
            let mut config = Preset::Base.config(257, kind, 3);
            config.set_head_width(width);
            config.check().expect("a valid width");
            let specs = layout::layout(&config);
            let size = |head: bool| -> usize {
                let some = specs.iter().filter(|s| layout::is_head(&s.name) == head);
                some.map(|s| s.shape.iter().product::<usize>()).sum()
            };
            let share = size(true) as f64 / (size(true) + size(false)) as f64;
            assert!((0.01..=0.03).contains(&share), "{kind:?}: {share}");
        }
    }

    /// Against sums written out by hand for C 4, F 6, H 2, G 1, D 2, L 1, V 10, K 2, T 3.
    #[test]
    fn operations_of_a_model_small_enough_to_count_by_hand() {
        let config = |kind| {
            let mut config = Preset::Tiny.config(10, kind, 2);
            (config.hidden_size, config.intermediate_size) = (4, 6);
            (config.num_hidden_layers, config.head_dim) = (1, 2);
            (config.num_attention_heads, config.num_key_value_heads) = (2, 1);
            config.set_head_width(4);
            config
        };
        // q 4·4, k and v 2·4, o 4·4, gate, up and down 6·4; keys 1, 2, 3 seen by heads of 4 elements together.
        let layer = 2 * (16 + 8 + 8 + 16 + 3 * 24);
        let attention = |mean_twice: u64| 4 * 4 * mean_twice / 2;
        let output = 2 * 40;
        let trunk = layer + attention(4) + output;
        let medusa = config(HeadKind::Medusa).flops(3);
        assert_eq!((medusa.decode, medusa.draft), (trunk, 2 * 16 + output));
        // Heads 1 and 2 have 2 and 1 of the 3 positions: together one head per token.
        assert_eq!(medusa.train, 3 * (trunk + 2 * 16 + output));
        for kind in [HeadKind::Recursive, HeadKind::Sequential] {
            let chained = config(kind).flops(3);
            let fc = 2 * 4 * 8;
            let head = |mean_twice| fc + layer + output + attention(mean_twice);
            assert_eq!((chained.decode, chained.draft), (trunk, head(4)));
            // Keys of head 1: 1 and 2; of head 2: 1.
            let heads = (2 * head(3) + head(2)) as f64 / 3.0;
            assert_eq!(chained.train, (3.0 * (trunk as f64 + heads)).round() as u64);
        }
        let bare = Config {
            mtp_depth: 0,
            ..config(HeadKind::Parallel)
        };
        assert_eq!(bare.flops(3).draft, 0);
        assert_eq!(bare.flops(3).train, 3 * trunk);
    }

    #[test]
    fn shared_parameters_are_those_that_heads_use_too() {
        for (kind, tied, expected) in [
            (HeadKind::Recursive, true, 1),
            (HeadKind::Sequential, false, 2),
            (HeadKind::Parallel, false, 1),
            (HeadKind::Medusa, true, 1),
        ] {
            let mut config = Preset::Tiny.config(50, kind, 1);
            config.tie_word_embeddings = tied;
            let model = Model::new(config.clone(), 1).expect("valid sizes");
            let counts = model.parameter_counts();
            assert_eq!(counts.shared, expected * 50 * 128, "{kind:?}");
            assert_eq!(counts.trunk + counts.heads, model.params().elements());
            config.mtp_depth = 0;
            let bare = Model::new(config, 1).expect("valid sizes");
            let bare = bare.parameter_counts();
            assert_eq!((bare.shared, bare.heads), (0, 0));
            assert_eq!(bare.trunk, counts.trunk);
        }
    }
}
