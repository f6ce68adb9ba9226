//! The machine that is the host's CPU.
use super::driver::{Block, Machine};
use std::ffi::c_void;
pub(super) struct Emulated;
impl Emulated {
    pub fn new(_: super::Order) -> Result<Self, String> {
        Err("later".to_owned())
    }
}
impl Machine for Emulated {
    fn name(&self) -> String {
        String::new()
    }
    fn allocate(&self, _: usize) -> Result<Block, String> {
        todo!()
    }
    fn free(&self, _: Block) {
        todo!()
    }
    fn write(&self, _: &[u32], _: &Block, _: usize) -> Result<(), String> {
        todo!()
    }
    fn copy(&self, _: (&Block, usize), _: (&Block, usize), _: usize) -> Result<(), String> {
        todo!()
    }
    fn read(&self, _: &Block, _: usize, _: &mut [u32]) -> Result<(), String> {
        todo!()
    }
    // SAFETY: of the trait.
    unsafe fn launch(
        &self,
        _: &'static str,
        _: [u32; 3],
        _: u32,
        _: &mut [*mut c_void],
    ) -> Result<(), String> {
        todo!()
    }
}
