//! Initial values of parameters: a pure function of (seed, tensor name) (rule R10).

use super::Tensor;
use crate::simd::scalar;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// Normal values with mean 0 and this standard deviation.
///
/// The generator is ChaCha8 keyed by SHA-256 of the seed (eight bytes, little-endian) and the name, so that adding a
/// tensor to a model changes no other.
pub fn normal(seed: u64, name: &str, shape: &[usize], deviation: f64) -> Tensor {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(name.as_bytes());
    let mut generator = ChaCha8Rng::from_seed(hash.finalize().into());
    let mut tensor = Tensor::empty(shape);
    for x in tensor.data_mut() {
        let words = [generator.next_u64(), generator.next_u64()];
        *x = (scalar::standard_normal(words) * deviation) as f32;
    }
    tensor
}

/// One everywhere: the initial weight of a norm.
pub fn ones(shape: &[usize]) -> Tensor {
    let mut tensor = Tensor::empty(shape);
    tensor.data_mut().fill(1.0);
    tensor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_depend_on_seed_and_name_only() {
        let a = normal(1, "w", &[10, 10], 0.5);
        assert_eq!(a.data(), normal(1, "w", &[100], 0.5).data());
        assert_ne!(a.data(), normal(2, "w", &[10, 10], 0.5).data());
        assert_ne!(a.data(), normal(1, "v", &[10, 10], 0.5).data());
    }

    #[test]
    fn the_moments_are_those_of_a_normal_distribution() {
        let n = 100_000;
        let t = normal(7, "moments", &[n], 2.0);
        let moment =
            |p: i32| t.data().iter().map(|x| f64::from(*x).powi(p)).sum::<f64>() / n as f64;
        assert!(moment(1).abs() < 0.03);
        assert!((moment(2) - 4.0).abs() < 0.1);
        assert!((moment(4) - 48.0).abs() < 3.0);
    }
}
