//! The kinds of prediction heads: what each reads, and what it keeps while decoding.

use serde::{Deserialize, Serialize};

/// How the prediction heads are built. The formulas stand in [`super::heads`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadKind {
    /// One module used K times, fed the previous depth's hidden state and the next token (Cai et al. 2025, FastMTP,
    /// arXiv:2509.18362; the module is that of DeepSeek-V3).
    Recursive,
    /// K modules in a chain, each fed the previous one's hidden state and the next token (DeepSeek-V3,
    /// arXiv:2412.19437, section 2.2).
    Sequential,
    /// K separate blocks on the trunk's hidden state (Gloeckle et al. 2024, arXiv:2404.19737).
    Parallel,
    /// K residual SiLU layers on the trunk's hidden state, without attention (Cai et al. 2024, Medusa,
    /// arXiv:2401.10774, section 2.1).
    Medusa,
}

impl HeadKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [
        Self::Recursive,
        Self::Sequential,
        Self::Parallel,
        Self::Medusa,
    ];

    /// The name in `config.json` and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Recursive => "recursive",
            Self::Sequential => "sequential",
            Self::Parallel => "parallel",
            Self::Medusa => "medusa",
        }
    }

    /// Whether a head reads the token it follows, and the previous depth's hidden state instead of the trunk's.
    pub fn chained(self) -> bool {
        match self {
            Self::Recursive | Self::Sequential => true,
            Self::Parallel | Self::Medusa => false,
        }
    }

    /// The depth 0..k whose hidden state depth k = 1..=K reads; depth 0 is the trunk. Depth k is computed on `k − source`
    /// rows less of each sequence than that depth.
    pub fn source(self, k: usize) -> usize {
        if self.chained() { k - 1 } else { 0 }
    }

    /// Whether each depth has a cache of keys and values. Without one a row depends on its own position only, and the
    /// rows before it need not be computed.
    pub fn cached(self) -> bool {
        match self {
            Self::Recursive | Self::Sequential | Self::Parallel => true,
            Self::Medusa => false,
        }
    }

    /// Entries of depth k that were computed from tokens before position `p` only, where the trunk has seen positions
    /// 0..`p`: entry i of a chained kind reads tokens up to x_{i+k}, of the others up to x_i.
    pub fn num_valid(self, k: usize, p: usize) -> usize {
        match self.chained() {
            true => p.saturating_sub(k),
            false => p,
        }
    }
}
