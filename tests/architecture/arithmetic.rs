//! What would let a platform, a version or a thread count change a result.
//!
//! Clippy refuses the functions of libm and `mul_add` outside `simd` (`.ci/clippy.toml`). The macro below proves that
//! it sees each of them: an expectation that no lint fulfils is a warning, which `.ci/run` treats as an error.

use crate::source::{Finding, Tree, words};

pub fn check_rayon(tree: &Tree) -> Vec<Finding> {
    tree.rust()
        .filter(|file| file.path != "src/kernels/par.rs" && !file.is_rust_in("src/kernels/par"))
        .flat_map(|file| {
            words(&file.code, "rayon").map(|at| file.finding(at, "`rayon` outside kernels/par"))
        })
        .collect()
}

macro_rules! refused {
    ($($float:ident: $($name:ident)*;)*) => {$($(
        const _: () = {
            #[expect(clippy::disallowed_methods, reason = "clippy must see it")]
            #[allow(dead_code)]
            fn refused() {
                let _ = $float::$name;
            }
        };
    )*)*};
}

refused! {
    f32: exp exp2 exp_m1 ln ln_1p log log2 log10 sin cos tan sin_cos asin acos atan atan2 sinh cosh tanh asinh acosh atanh
        powf powi cbrt hypot mul_add;
    f64: exp exp2 exp_m1 ln ln_1p log log2 log10 sin cos tan sin_cos asin acos atan atan2 sinh cosh tanh asinh acosh atanh
        powf powi cbrt hypot mul_add;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rayon_is_caught() {
        let lines = |path, text| -> Vec<usize> {
            let found = check_rayon(&Tree::of(&[(path, text)]));
            found.iter().map(|finding| finding.line).collect()
        };
        for path in [
            "src/kernels/gemm.rs",
            "src/kernels/parallel.rs",
            "tests/a.rs",
            "benches/b.rs",
        ] {
            assert_eq!(lines(path, "\nuse rayon::prelude::*;"), [2], "{path}");
        }
        for path in ["src/kernels/par.rs", "src/kernels/par/pool.rs"] {
            assert_eq!(lines(path, "use rayon::prelude::*;"), [0; 0], "{path}");
        }
        assert_eq!(lines("src/lib.rs", "// rayon\n"), [0; 0]);
    }
}
