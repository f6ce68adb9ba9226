//! `foretoken eval --agreement`: what drafting would do to the model's own plain continuations.

use super::decoding::cut;
use super::device::Held;
use crate::Result;
use crate::data::{Tokenizer, Tokens};
use crate::infer::{Drafts, GenerateOptions, NoDrafts, Request};
use crate::model::Model;
use clap::Args;
use serde::Serialize;
use std::ops::ControlFlow;

/// Flags of `--agreement`.
#[derive(Clone, Debug, Args)]
pub struct Flags {
    /// Also continue prompts cut from the text, and report how often each depth agrees with the trunk
    #[arg(long)]
    pub agreement: bool,
    /// With --agreement: prompts, spread evenly over the text
    #[arg(long, default_value_t = 20, value_name = "N", requires = "agreement")]
    prompts: usize,
    /// With --agreement: tokens of a prompt
    #[arg(long, default_value_t = 64, value_name = "N", requires = "agreement")]
    prompt_tokens: usize,
    /// With --agreement: tokens to continue each prompt by at most
    #[arg(long, default_value_t = 128, value_name = "N", requires = "agreement")]
    max_tokens: usize,
}

/// What `--agreement` adds to the report.
#[derive(Clone, Debug, Serialize)]
pub struct Agreement {
    prompts: usize,
    /// Tokens that plain decoding wrote.
    new_tokens: usize,
    /// Share of the places where the guess of depth 1, 2, .. is what plain decoding wrote.
    agreement_by_depth: Vec<f64>,
    /// What a fixed number of drafts a step does.
    fixed: Vec<Fixed>,
}

/// A fixed number of drafts a step: what `generate --draft N` reports, added up over the prompts.
#[derive(Clone, Debug, Serialize)]
struct Fixed {
    drafts: usize,
    steps: usize,
    tokens_per_step: f64,
    drafted_by_depth: Vec<usize>,
    accepted_by_depth: Vec<usize>,
}

/// Adds up lists of different lengths.
pub fn add(total: &mut Vec<usize>, more: &[usize]) {
    if total.len() < more.len() {
        total.resize(more.len(), 0);
    }
    total.iter_mut().zip(more).for_each(|(sum, n)| *sum += n);
}

impl Flags {
    /// Whether agreement can be measured so.
    ///
    /// # Errors
    /// Flags that do not fit the text or the model.
    pub fn check(&self, model: &Model, tokens: &Tokens) -> Result<()> {
        let start = cut(tokens.len(), self.prompts, self.prompt_tokens)?[0];
        let mut prompt = Vec::new();
        tokens.read(start, self.prompt_tokens, &mut prompt)?;
        let options = GenerateOptions {
            max_tokens: self.max_tokens,
            ..GenerateOptions::default()
        };
        Request::new(prompt, options).check(model.config())
    }

    /// Measures agreement on prompts cut from `tokens`, at temperature 0.
    ///
    /// # Errors
    /// Flags that do not fit the text or the model.
    pub fn measure(
        &self,
        held: &Held<'_>,
        tokenizer: &Tokenizer,
        tokens: &Tokens,
    ) -> Result<Agreement> {
        let read = |start: usize| {
            let mut prompt = Vec::with_capacity(self.prompt_tokens);
            tokens.read(start, self.prompt_tokens, &mut prompt)?;
            Ok(prompt)
        };
        let starts = cut(tokens.len(), self.prompts, self.prompt_tokens)?;
        let prompts: Vec<Vec<u32>> = starts.into_iter().map(read).collect::<Result<_>>()?;
        let options = GenerateOptions {
            max_tokens: self.max_tokens,
            drafts: Drafts::Fixed(0),
            stop: tokenizer.end_of_text().into_iter().collect(),
            ..GenerateOptions::default()
        };
        let depth = held.model.config().mtp_depth;
        let fixed = |drafts| Fixed {
            drafts,
            steps: 0,
            tokens_per_step: 0.0,
            drafted_by_depth: Vec::new(),
            accepted_by_depth: Vec::new(),
        };
        let mut fixed: Vec<Fixed> = (1..=depth).map(fixed).collect();
        let (mut agreed, mut places, mut new_tokens) = (vec![0; depth], vec![0; depth], 0);
        // A few at a time: the memory of a batch grows with it.
        for prompts in prompts.chunks(16) {
            let request = |prompt: &Vec<u32>| Request::new(&prompt[..], options.clone());
            let requests: Vec<Request> = prompts.iter().map(request).collect();
            let plain = held
                .session()
                .generate(&requests, &mut NoDrafts, &mut |_, _, _| {
                    ControlFlow::Continue(())
                })?;
            for (prompt, plain) in prompts.iter().zip(plain) {
                new_tokens += plain.tokens.len();
                let text = [&**prompt, &*plain.tokens].concat();
                let replay = held.replay(&text, prompt.len(), options.sampler)?;
                for (k, (hits, rows)) in replay.agreement().into_iter().enumerate() {
                    agreed[k] += hits;
                    places[k] += rows;
                }
                for fixed in &mut fixed {
                    let generated = replay.generated(fixed.drafts, self.max_tokens);
                    fixed.steps += generated.steps;
                    add(&mut fixed.drafted_by_depth, &generated.drafted_by_depth);
                    add(&mut fixed.accepted_by_depth, &generated.accepted_by_depth);
                }
            }
        }
        for fixed in &mut fixed {
            fixed.tokens_per_step = new_tokens as f64 / fixed.steps.max(1) as f64;
        }
        let share = |(hits, rows): (&usize, &usize)| *hits as f64 / (*rows).max(1) as f64;
        Ok(Agreement {
            prompts: prompts.len(),
            new_tokens,
            agreement_by_depth: agreed.iter().zip(&places).map(share).collect(),
            fixed,
        })
    }
}

impl Agreement {
    /// The figures as text.
    pub fn describe(&self) -> String {
        let mut lines = vec![
            format!(
                "{} prompts continued by {} tokens; share of each depth's guesses that agree {}",
                self.prompts,
                self.new_tokens,
                super::output::figures(&self.agreement_by_depth)
            ),
            "drafts  tokens a step  accepted by depth".to_owned(),
        ];
        for fixed in &self.fixed {
            lines.push(format!(
                "{:>6}  {:>13.2}  {:?} of {:?}",
                fixed.drafts,
                fixed.tokens_per_step,
                fixed.accepted_by_depth,
                fixed.drafted_by_depth
            ));
        }
        lines.join("\n")
    }
}
