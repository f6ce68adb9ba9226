//! The list of a model's parameters, and what their names say. The trunk's names are those of the public checkpoints;
//! the heads' names begin with `mtp.`.
//!
//! Heads are numbered k = 1..=K here as everywhere; in the names of tensors, modules are numbered from 0.

pub use super::declare::ParamSpec;

use super::declare::Declare;
use super::{Config, HeadKind, heads, trunk};

/// Whether the tensor of that name belongs to the prediction heads.
pub fn is_head(name: &str) -> bool {
    name.starts_with("mtp.")
}

/// The first head k = 1..=K that uses the tensor of that name; none for a tensor of the trunk.
pub fn first_head(name: &str) -> Option<usize> {
    let module = name.strip_prefix("mtp.")?.strip_prefix("modules.");
    let number = module.and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
    Some(number.map_or(1, |k| k + 1))
}

/// All parameters, in no particular order.
pub fn layout(config: &Config) -> Vec<ParamSpec> {
    let mut list = Vec::new();
    let mut take = |spec| list.push(spec);
    let mut declare = Declare::new(&mut take);
    trunk::TrunkParams::declare(config, &mut declare);
    let modules = match config.mtp_kind {
        HeadKind::Recursive => config.mtp_depth.min(1),
        _ => config.mtp_depth,
    };
    for k in 1..=modules {
        heads::HeadParams::declare(config, k, &mut declare);
    }
    list
}
