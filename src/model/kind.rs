//! The kinds of prediction heads: what each reads, and what it caches during decoding.

use serde::{Deserialize, Serialize};

/// How the prediction heads are built. [`super::heads`] has the formulas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum HeadKind {
    /// One module used K times, fed with the previous head's hidden state and the next token (Cai et al. 2025, FastMTP,
    /// arXiv:2509.18362; the module is that of DeepSeek-V3).
    Recursive,
    /// K modules in a chain, each fed with the previous one's hidden state and the next token (DeepSeek-V3,
    /// arXiv:2412.19437, section 2.2).
    Sequential,
    /// K separate blocks on the trunk's hidden state (Gloeckle et al. 2024, arXiv:2404.19737).
    Parallel,
    /// K residual SiLU layers on the trunk's hidden state, without attention (Cai et al. 2024, Medusa,
    /// arXiv:2401.10774, section 2.1).
    Medusa,
}

names!(HeadKind {
    Recursive = "recursive",
    Sequential = "sequential",
    Parallel = "parallel",
    Medusa = "medusa"
});

impl HeadKind {
    /// Whether head k reads a token, x_{i+k}, and the hidden state of head k − 1 instead of the trunk's.
    pub fn chained(self) -> bool {
        matches!(self, Self::Recursive | Self::Sequential)
    }

    /// The head whose hidden state head k = 1..=K reads; 0 is the trunk. Head k is computed on `k − source` fewer rows
    /// per sequence than its source.
    pub fn source(self, k: usize) -> usize {
        if self.chained() { k - 1 } else { 0 }
    }

    /// Whether each head has a KV cache. Without one a row depends on its own position only, so the rows before it need
    /// not be computed.
    pub fn cached(self) -> bool {
        self != Self::Medusa
    }

    /// Number of cache entries of head k that depend only on tokens before position `p`: entry i of a chained kind
    /// reads tokens up to x_{i+k}, of the other kinds up to x_i.
    pub fn num_valid_entries(self, k: usize, p: usize) -> usize {
        if self.chained() {
            p.saturating_sub(k)
        } else {
            p
        }
    }
}
