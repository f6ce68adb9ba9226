//! `--device`: the device that computes.

use super::machine::Machine;
use crate::Result;
use crate::data::{Tokenizer, Tokens};
use crate::infer::{OfflineReplay, Sampler, Session};
use crate::model::Model;
use crate::train::{Evaluation, evaluate};
use clap::{Args, ValueEnum};

#[cfg(feature = "cuda")]
use crate::{gpu, train};

/// Flags of the commands that can compute on a GPU.
#[derive(Clone, Debug, Args)]
pub struct On {
    /// Device to compute on; never changes a result
    #[arg(long, default_value = "cpu")]
    device: Name,
    #[command(flatten)]
    pub machine: Machine,
}

/// Names of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// This machine's CPU
    Cpu,
    /// An NVIDIA GPU, in builds with the feature cuda
    Cuda,
}

/// An open device.
#[derive(Clone)]
pub enum Device {
    /// The CPU.
    Cpu,
    /// A GPU.
    #[cfg(feature = "cuda")]
    Cuda(gpu::Device),
}

impl On {
    /// Opens the device.
    ///
    /// # Errors
    /// If the feature, a driver or a GPU is missing.
    pub fn open(&self) -> super::failure::Result<Device> {
        match self.device {
            Name::Cpu => Ok(Device::Cpu),
            #[cfg(feature = "cuda")]
            Name::Cuda => Ok(Device::Cuda(gpu::Device::open()?)),
            #[cfg(not(feature = "cuda"))]
            Name::Cuda => Err(super::failure::Failure::Usage(
                "--device cuda: this program was built without CUDA; build it with `cargo build --release --features cuda`"
                    .to_owned(),
            )),
        }
    }
}

impl Device {
    /// Sends a model's weights to this device.
    ///
    /// # Errors
    /// If they do not fit.
    pub fn hold<'m>(&self, model: &'m Model) -> Result<Held<'m>> {
        Ok(Held {
            model,
            #[cfg(feature = "cuda")]
            weights: match self {
                Self::Cpu => None,
                Self::Cuda(device) => Some(gpu::DeviceParams::new(device, model.params())?),
            },
        })
    }
}

/// A model on a device.
pub struct Held<'m> {
    /// The model.
    pub model: &'m Model,
    #[cfg(feature = "cuda")]
    weights: Option<gpu::DeviceParams<'m>>,
}

impl<'m> Held<'m> {
    /// A session on the device.
    pub fn session(&self) -> Session<'_> {
        #[cfg(feature = "cuda")]
        if let Some(weights) = &self.weights {
            return Session::with_executor(gpu::GpuExec::new(weights), self.model);
        }
        Session::new(self.model)
    }

    /// As [`OfflineReplay::new`].
    ///
    /// # Errors
    /// Returns those of [`OfflineReplay::new`].
    pub fn replay<'a>(
        &self,
        text: &'a [u32],
        prompt_len: usize,
        sampler: Sampler,
    ) -> Result<OfflineReplay<'a>> {
        #[cfg(feature = "cuda")]
        if let Some(weights) = &self.weights {
            let mut exec = gpu::GpuExec::with_sequence(weights);
            return OfflineReplay::with_executor(&mut exec, self.model, text, prompt_len, sampler);
        }
        OfflineReplay::new(self.model, text, prompt_len, sampler)
    }

    /// As [`evaluate`].
    ///
    /// # Errors
    /// Returns those of [`evaluate`].
    pub fn evaluate(
        &self,
        tokens: &Tokens,
        tokenizer: &Tokenizer,
        context: usize,
    ) -> Result<Evaluation> {
        #[cfg(feature = "cuda")]
        if let Some(weights) = &self.weights {
            let exec = || gpu::GpuExec::with_sequence(weights);
            return train::evaluate_on(&exec, self.model, tokens, tokenizer, context);
        }
        evaluate(self.model, tokens, tokenizer, context)
    }
}
