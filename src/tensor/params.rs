//! The parameters of a model: tensors by name, in name order.

use super::Tensor;
use std::sync::Arc;

/// A parameter's place in its [`Params`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParamId(usize);

impl ParamId {
    /// The place as a number, 0..[`Params::len`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// Named tensors in name order, which is the order of every sum over parameters (rule R9).
#[derive(Clone, Debug)]
pub struct Params {
    entries: Vec<(String, Arc<Tensor>)>,
}

impl Params {
    /// Sorts the tensors by name.
    ///
    /// # Panics
    /// Panics if two have the same name.
    pub fn new(mut entries: Vec<(String, Tensor)>) -> Self {
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        for pair in entries.windows(2) {
            assert_ne!(
                pair[0].0, pair[1].0,
                "Params::new: two parameters of one name"
            );
        }
        let share = |(name, tensor)| (name, Arc::new(tensor));
        Self {
            entries: entries.into_iter().map(share).collect(),
        }
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The place of the tensor of that name.
    pub fn find(&self, name: &str) -> Option<ParamId> {
        let at = self.entries.binary_search_by(|(n, _)| n.as_str().cmp(name));
        at.ok().map(ParamId)
    }

    /// The tensor.
    pub fn get(&self, id: ParamId) -> &Arc<Tensor> {
        &self.entries[id.0].1
    }

    /// The tensor, for writing. If another `Arc` of it exists, that keeps the old values.
    pub fn get_mut(&mut self, id: ParamId) -> &mut Tensor {
        Arc::make_mut(&mut self.entries[id.0].1)
    }

    /// The tensor's name.
    pub fn name(&self, id: ParamId) -> &str {
        &self.entries[id.0].0
    }

    /// All places, in name order.
    pub fn ids(&self) -> impl Iterator<Item = ParamId> + use<> {
        (0..self.entries.len()).map(ParamId)
    }

    /// All names and tensors, in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|(name, t)| (name.as_str(), &**t))
    }

    /// Number of elements of all tensors.
    pub fn elements(&self) -> usize {
        self.iter().map(|(_, t)| t.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_order_and_found() {
        let entry = |name: &str, n| (name.to_owned(), Tensor::zeros(&[n]));
        let params = Params::new(vec![entry("b", 2), entry("a", 1), entry("c", 3)]);
        let names: Vec<&str> = params.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "b", "c"]);
        let id = params.find("c").expect("it is there");
        assert_eq!((params.name(id), params.get(id).len()), ("c", 3));
        assert_eq!(params.find("d"), None);
        assert_eq!(params.elements(), 6);
    }
}
