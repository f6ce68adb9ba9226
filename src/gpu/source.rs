//! The kernels' source. All files are one unit of compilation.

/// The files in their order.
pub(super) const KERNELS: &[&str] = &[
    include_str!("kernels/common.cu"),
    include_str!("kernels/products.cu"),
    include_str!("kernels/rows.cu"),
    include_str!("kernels/attention.cu"),
    include_str!("kernels/pick.cu"),
];

/// The whole source, after `prelude`.
pub(super) fn whole(prelude: &str) -> String {
    let files = KERNELS.iter().copied();
    std::iter::once(prelude)
        .chain(files)
        .collect::<Vec<_>>()
        .join("\n")
}
