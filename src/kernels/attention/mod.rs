//! Causal grouped-query attention under rule R5, forward and backward, for training, prefill, verify and decode.
//!
//! ```text
//! s[j] = (chain over D of q · k[j]) · scale           j = 0..=t, the query's own keys only
//! m = max s;  e[j] = exp(s[j] − m);  Z = Σ e          rule R2, lane j mod 16
//! o = (chain over j ascending of e[j] v[j]) / Z
//! ```
//!
//! Queries are taken a few at a time, as many as a micro-tile has rows, and their scores live in a buffer of that many
//! rows: no T × T matrix is ever stored. Each query still has its own chains over exactly its own keys, so the result
//! does not depend on which queries are taken together, where the keys end, or what else is in the batch.
//!
//! Rows of q, k and v lie in one matrix qkv [rows, (H + 2 G) D]: H query heads, then G key heads, then G value heads.
//!
//! Files: `keys` (keys and values in panels, which is also the KV cache), `forward`, `backward`.

mod backward;
mod forward;
mod keys;

pub use backward::backward;
pub use forward::{CachedSequence, cached, forward};
pub use keys::KeyValues;

use super::gemm::View;

/// Heads of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionHeads {
    /// H, number of query heads.
    pub num_heads: usize,
    /// G, number of key and value heads; divides H.
    pub num_kv_heads: usize,
    /// D, elements of a head.
    pub head_dim: usize,
}

impl AttentionHeads {
    /// Query heads that share one key head.
    pub fn group(&self) -> usize {
        self.num_heads / self.num_kv_heads
    }

    /// Columns of qkv.
    pub fn width(&self) -> usize {
        (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
    }

    /// 1 / √D, the factor of the scores.
    pub fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// The queries of head `h` in qkv [rows, (H + 2 G) D], [rows, D].
    pub fn queries<'a>(&self, qkv: View<'a>, h: usize) -> View<'a> {
        qkv.columns(h * self.head_dim, (h + 1) * self.head_dim)
    }

    /// The keys of key head `g`, [rows, D].
    pub fn keys<'a>(&self, qkv: View<'a>, g: usize) -> View<'a> {
        self.queries(qkv, self.num_heads + g)
    }

    /// The values of key head `g`, [rows, D].
    pub fn values<'a>(&self, qkv: View<'a>, g: usize) -> View<'a> {
        self.queries(qkv, self.num_heads + self.num_kv_heads + g)
    }
}

/// Queries (or keys) of the next tile when `rest` are left and a tile holds `max`: a power of two up to 8, so that few
/// forms of the kernel exist and the row pointers stay in registers.
fn tile_rows(rest: usize, max: usize) -> usize {
    1 << rest.min(max).min(8).ilog2()
}

/// Does `$go` with the number of rows as a constant; no code is made for more rows than the backend's tile has.
macro_rules! with_rows {
    ($s:ident, $m:expr, $name:ident => $go:expr) => {
        with_rows!($s, $m, $name => $go, 1 2 4 8)
    };
    ($s:ident, $m:expr, $name:ident => $go:expr, $($height:literal)*) => {
        match $m {
            $($height if $height <= $s::TILE_ROWS => {
                const $name: usize = $height;
                $go
            })*
            m => unreachable!("{m} rows in a tile of attention"),
        }
    };
}
use with_rows;

#[cfg(test)]
mod tests;
