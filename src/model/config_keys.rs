//! The keys of a `config.json`, which may come from another program.
//!
//! A key that changes the mathematics is understood, or the file is refused: nothing is computed differently from what
//! the file asks for. Every key is therefore one of
//!
//! * a field of [`Config`];
//! * `model_type` or `architectures`, which name the family of the model (`FAMILIES`);
//! * a key that must have the value this crate computes with, or be `null` (`RULES`);
//! * `sliding_window`, a class of its own: it must be switched off, or reach over all positions of the model;
//! * a key that cannot change a logit (`IGNORED`), or one that starts with `_`;
//! * anything else, which is refused by name unless it is `null`.

use super::Config;
use super::config::require;
use crate::{Error, Result};
use serde_json::Value;

/// The keys of a `config.json` with their values.
pub type Keys = serde_json::Map<String, Value>;

/// A key, the values that it may have, and these values in words.
type Rule = (&'static str, fn(&Value) -> bool, &'static str);

const RULES: [Rule; 20] = [
    ("hidden_act", is_silu, "silu"),
    ("hidden_activation", is_silu, "silu"),
    ("mlp_bias", |v| v == false, "false"),
    ("attention_out_bias", |v| v == false, "false"),
    ("partial_rotary_factor", is_one, "1"),
    ("pretraining_tp", is_one, "1"),
    ("logit_scale", is_one, "1"),
    ("logits_scaling", is_one, "1"),
    ("embedding_multiplier", is_one, "1"),
    ("residual_multiplier", is_one, "1"),
    ("rope_interleaved", |v| v == false, "false"),
    ("is_encoder_decoder", |v| v == false, "false"),
    ("add_cross_attention", |v| v == false, "false"),
    ("tie_encoder_decoder", |v| v == false, "false"),
    (
        "pruned_heads",
        |v| v.as_object().is_some_and(|heads| heads.is_empty()),
        "no heads",
    ),
    ("rope_scaling", is_default_rope, "null or the type default"),
    (
        "rope_parameters",
        is_default_rope,
        "null or the type default",
    ),
    (
        "layer_types",
        |v| all(v, |layer| layer == "full_attention"),
        "full_attention for every layer",
    ),
    ("use_sliding_window", Value::is_boolean, "true or false"),
    ("is_decoder", Value::is_boolean, "true or false"),
];

/// Dense decoders that this crate computes. Qwen2 is not among them: its q, k and v have biases.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Family {
    Llama,
    Mistral,
    Qwen3,
}

/// The families as `model_type` and `architectures` call them.
const FAMILIES: [(Family, &str, &str); 3] = [
    (Family::Llama, "llama", "LlamaForCausalLM"),
    (Family::Mistral, "mistral", "MistralForCausalLM"),
    (Family::Qwen3, "qwen3", "Qwen3ForCausalLM"),
];

/// θ of a file that does not have it (the configurations of all families in the library transformers).
const DEFAULT_THETA: f64 = 10_000.0;
/// The sliding window of a Mistral, or of a Qwen3 with the window switched on, whose file does not have it (likewise).
const DEFAULT_WINDOW: u64 = 4096;

/// Names, versions, token ids, initialisation, dropout in training, and how other programs load and run a model or
/// sample from it.
/// `max_window_layers` has a meaning with a sliding window only, which has a rule of its own.
const IGNORED: [&str; 59] = [
    "attention_dropout",
    "attn_implementation",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "foretoken_tokenizer_sha256",
    "gradient_checkpointing",
    "hidden_dropout",
    "id2label",
    "initializer_range",
    "is_llama_config",
    "label2id",
    "length_penalty",
    "max_length",
    "max_window_layers",
    "min_length",
    "name_or_path",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
];

/// What is found of a key that a file does not have.
const MISSING: &str = "none: it is missing";

impl Config {
    /// Reads the keys of a `config.json` that deserialising a [`Config`] from it ignores, or leaves at a default.
    ///
    /// `head_dim` is C / H if the file has none, `num_key_value_heads` of a Llama is H, and `rope_theta` may be inside
    /// `rope_parameters` or `rope_scaling`.
    ///
    /// # Errors
    /// Returns [`Error::Config`] with the first key that asks for other mathematics, or that this crate does not know.
    pub fn read_keys(&mut self, keys: &Keys) -> Result<()> {
        let given = |key: &str| given(keys, key);
        let family = family(keys)?;
        if given("head_dim").is_none() {
            let heads = self.num_attention_heads.max(1);
            let divides = self.hidden_size.is_multiple_of(heads);
            let expected = "a size, because num_attention_heads does not divide hidden_size";
            require("head_dim", divides, expected, MISSING)?;
            self.head_dim = self.hidden_size / heads;
        }
        if given("num_key_value_heads").is_none() {
            // Only Llama's default follows from the other keys.
            let llama = family == Some(Family::Llama);
            require("num_key_value_heads", llama, "a number", MISSING)?;
            self.num_key_value_heads = self.num_attention_heads;
        }
        // The switch of Qwen; the other families have none.
        let switch = match family {
            Some(Family::Qwen3) => given("use_sliding_window"),
            _ => None,
        };
        let slides = family == Some(Family::Mistral) || switch.is_some_and(|on| on == true);
        if slides && !keys.contains_key("sliding_window") {
            self.check_sliding_window(&Value::from(DEFAULT_WINDOW), None)?;
        }
        let mut rope_theta = given("rope_theta").is_some();
        if !rope_theta && family.is_some() {
            self.rope_theta = DEFAULT_THETA;
        }
        for key in ["rope_parameters", "rope_scaling"] {
            let nested = given(key).and_then(|rope| rope.get("rope_theta")?.as_f64());
            let Some(theta) = nested else { continue };
            if rope_theta {
                let expected = format!("{theta}, as in {key}");
                let same = theta == self.rope_theta;
                require("rope_theta", same, &expected, self.rope_theta)?;
            }
            (self.rope_theta, rope_theta) = (theta, true);
        }
        require(
            "rope_theta",
            rope_theta || family.is_some(),
            "a number",
            MISSING,
        )?;
        let own = serde_json::to_value(&*self).expect("plain data");
        for (key, value) in keys {
            let own = own.get(key).is_some();
            let ignored = IGNORED.contains(&key.as_str()) || key.starts_with('_');
            let names_family = key == "model_type" || key == "architectures";
            if own || ignored || names_family || value.is_null() {
                continue;
            }
            if key == "sliding_window" {
                self.check_sliding_window(value, switch)?;
                continue;
            }
            let unknown = "no such key, because it may change what the model computes";
            let (holds, expected) = match RULES.iter().find(|(name, ..)| name == key) {
                Some((_, holds, expected)) => (holds(value), *expected),
                None => (false, unknown),
            };
            if !holds {
                return Err(refused(key, expected, value));
            }
        }
        Ok(())
    }

    /// Infers `use_qk_norm` from the tensors, if the `config.json` has no such key: public checkpoints have none. A
    /// Qwen3 always has the norm.
    pub fn infer_qk_norm(&mut self, keys: &Keys, has_tensor: impl Fn(&str) -> bool) {
        if !keys.contains_key("use_qk_norm") {
            let qwen3 = matches!(family(keys), Ok(Some(Family::Qwen3)));
            self.use_qk_norm = qwen3 || has_tensor("model.layers.0.self_attn.q_norm.weight");
        }
    }

    /// A window changes nothing if it is switched off, or if no position lies outside it.
    fn check_sliding_window(&self, window: &Value, switch: Option<&Value>) -> Result<()> {
        let positions = self.max_position_embeddings as u64;
        let off = switch.is_some_and(|switch| switch == false);
        if off || window.as_u64().is_some_and(|window| window >= positions) {
            return Ok(());
        }
        let expected = format!("null, or at least max_position_embeddings ({positions})");
        Err(refused("sliding_window", &expected, window))
    }
}

/// A key whose value is not accepted. Both come from a file, and are shortened.
fn refused(key: &str, expected: &str, value: &Value) -> Error {
    let shown =
        |text: &str| -> String { text.chars().flat_map(char::escape_debug).take(80).collect() };
    Error::Config {
        field: shown(key),
        expected: expected.to_owned(),
        found: shown(&value.to_string().replace('"', "")),
    }
}

/// A key's value, unless that is `null`.
fn given<'a>(keys: &'a Keys, key: &str) -> Option<&'a Value> {
    keys.get(key).filter(|value| !value.is_null())
}

/// The family that `model_type` and `architectures` name; `None` for a file of this crate, which has neither.
fn family(keys: &Keys) -> Result<Option<Family>> {
    let model_type = given(keys, "model_type");
    let architectures = given(keys, "architectures");
    let by_type = |value: &Value| FAMILIES.iter().find(|(_, name, _)| value == name);
    let by_architecture = |value: &Value| FAMILIES.iter().find(|(.., name)| value == name);
    let mut found = None;
    if let Some(value) = model_type {
        let known = by_type(value);
        found = Some(known.ok_or_else(|| refused("model_type", "llama, mistral or qwen3", value))?);
    }
    if let Some(value) = architectures {
        let expected = match found {
            Some((.., architecture)) => format!("[{architecture}], to go with model_type"),
            None => "[LlamaForCausalLM], [MistralForCausalLM] or [Qwen3ForCausalLM]".to_owned(),
        };
        let refused = || refused("architectures", &expected, value);
        let [architecture] = &value.as_array().ok_or_else(refused)?[..] else {
            return Err(refused());
        };
        let known = by_architecture(architecture).ok_or_else(refused)?;
        if found.is_some_and(|found| found.0 != known.0) {
            return Err(refused());
        }
        found = Some(known);
    }
    let own = keys.contains_key("foretoken_arithmetic");
    require(
        "model_type",
        own || found.is_some(),
        "llama, mistral or qwen3",
        MISSING,
    )?;
    Ok(found.map(|(family, ..)| *family))
}

fn all(value: &Value, holds: impl Fn(&Value) -> bool) -> bool {
    value.as_array().is_some_and(|list| list.iter().all(holds))
}

fn is_one(value: &Value) -> bool {
    value.as_f64() == Some(1.0)
}

/// Two names of one function.
fn is_silu(value: &Value) -> bool {
    value == "silu" || value == "swish"
}

/// RoPE without scaling. The type has one of two names, and θ may be given too.
fn is_default_rope(value: &Value) -> bool {
    let plain = |(key, value): (&String, &Value)| match key.as_str() {
        "type" | "rope_type" => value == "default",
        "rope_theta" => value.is_number(),
        "partial_rotary_factor" => is_one(value),
        _ => false,
    };
    value.as_object().is_some_and(|rope| rope.iter().all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{HeadKind, Preset};
    use serde_json::json;

    /// A public Qwen3 checkpoint's keys, with sizes of our own.
    fn qwen3() -> Value {
        json!({
            "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
            "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu",
            "hidden_size": 1024, "initializer_range": 0.02, "intermediate_size": 3072,
            "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3",
            "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-6,
            "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null, "tie_word_embeddings": true,
            "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": true,
            "use_sliding_window": false, "vocab_size": 151936
        })
    }

    /// The same of a small Llama.
    fn llama() -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5,
            "tie_word_embeddings": true, "attention_bias": false, "mlp_bias": false, "rope_scaling": null,
            "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 5, "num_attention_heads": 8,
            "num_key_value_heads": 4, "vocab_size": 512, "max_position_embeddings": 512, "rope_theta": 10000.0,
            "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32"
        })
    }

    fn without(mut json: Value, key: &str) -> Value {
        json.as_object_mut().unwrap().remove(key);
        json
    }

    fn read(json: &Value) -> Result<Config> {
        let mut config: Config = serde_json::from_value(json.clone()).expect("a config");
        let keys = json.as_object().expect("an object");
        config.read_keys(keys)?;
        config.check()?;
        config.infer_qk_norm(keys, |_| true);
        Ok(config)
    }

    #[test]
    fn public_configs_are_read() {
        let config = read(&qwen3()).unwrap();
        assert_eq!((config.head_dim, config.rope_theta), (128, 1e6));
        assert!(config.use_qk_norm);
        let config = read(&llama()).unwrap();
        assert_eq!((config.head_dim, config.mtp_depth), (8, 0));
        let own = Preset::Tiny.config(257, HeadKind::Recursive, 3);
        let mut json = serde_json::to_value(&own).unwrap();
        json["foretoken_tokenizer_sha256"] = json!("00");
        assert_eq!(read(&json).unwrap(), own);
    }

    #[test]
    fn qk_norm_is_inferred_only_if_the_file_does_not_say() {
        for (mut json, key, has_tensor, expected) in [
            (llama(), None, true, true),
            (llama(), None, false, false),
            // A Qwen3 without these tensors is incomplete.
            (qwen3(), None, false, true),
            (qwen3(), Some(false), true, false),
            (qwen3(), Some(true), false, true),
        ] {
            if let Some(key) = key {
                json["use_qk_norm"] = json!(key);
            }
            let mut config: Config = serde_json::from_value(json.clone()).unwrap();
            config.infer_qk_norm(json.as_object().unwrap(), |_| has_tensor);
            assert_eq!(config.use_qk_norm, expected);
        }
    }

    #[test]
    fn keys_that_change_the_mathematics_are_refused_by_name_and_value() {
        for (key, value) in [
            ("model_type", json!("qwen2")),
            ("model_type", json!("mixtral")),
            ("architectures", json!(["Qwen2ForCausalLM"])),
            ("architectures", json!(["LlamaForSequenceClassification"])),
            ("architectures", json!("LlamaForCausalLM")),
            ("hidden_act", json!("gelu")),
            ("hidden_activation", json!("gelu_pytorch_tanh")),
            ("attention_bias", json!(true)),
            ("mlp_bias", json!(true)),
            ("attention_out_bias", json!(true)),
            ("partial_rotary_factor", json!(0.5)),
            ("pretraining_tp", json!(2)),
            ("logit_scale", json!(0.0625)),
            ("final_logit_softcapping", json!(30.0)),
            ("attn_logit_softcapping", json!(50.0)),
            (
                "rope_scaling",
                json!({"rope_type": "llama3", "factor": 32.0}),
            ),
            ("rope_scaling", json!({"type": "linear", "factor": 2.0})),
            (
                "rope_scaling",
                json!({"rope_type": "default", "factor": 2.0}),
            ),
            (
                "rope_parameters",
                json!({"rope_type": "yarn", "rope_theta": 1000000.0}),
            ),
            ("sliding_window", json!(4096)),
            ("embedding_multiplier", json!(12.0)),
            ("attention_multiplier", json!(0.015625)),
            ("rope_interleaved", json!(true)),
            ("is_encoder_decoder", json!(true)),
            ("pruned_heads", json!({"1": [0]})),
            (
                "layer_types",
                json!(["full_attention", "sliding_attention"]),
            ),
            ("num_experts", json!(8)),
            ("num_local_experts", json!(8)),
            ("moe_intermediate_size", json!(768)),
            ("quantization_config", json!({"quant_method": "gptq"})),
            ("auto_map", json!({"AutoModel": "modeling.Model"})),
            ("key_of_next_year", json!(1)),
        ] {
            let mut json = qwen3();
            // The switch of Qwen3 would turn the window off.
            json.as_object_mut().unwrap().remove("use_sliding_window");
            json[key] = value.clone();
            let error = read(&json).expect_err(key);
            let Error::Config { field, found, .. } = &error else {
                panic!("{error}");
            };
            assert_eq!(
                (field.as_str(), found),
                (key, &value.to_string().replace('"', ""))
            );
        }
        for key in ["rope_parameters", "rope_scaling"] {
            let mut other_theta = qwen3();
            other_theta[key] = json!({"rope_type": "default", "rope_theta": 5e5});
            let error = read(&other_theta).unwrap_err().to_string();
            assert!(
                error.contains("`rope_theta`") && error.contains("500000"),
                "{error}"
            );
        }
    }

    #[test]
    fn keys_with_the_value_that_is_computed_are_accepted() {
        for (key, value) in [
            ("hidden_act", json!("swish")),
            ("hidden_activation", json!(null)),
            ("mlp_bias", json!(false)),
            ("partial_rotary_factor", json!(1.0)),
            ("pretraining_tp", json!(1)),
            ("rope_scaling", json!({"type": "default"})),
            (
                "rope_parameters",
                json!({"rope_type": "default", "rope_theta": 1e6}),
            ),
            ("sliding_window", json!(40960)),
            ("layer_types", json!(["full_attention", "full_attention"])),
            ("final_logit_softcapping", json!(null)),
            ("num_experts", json!(null)),
            ("attention_dropout", json!(0.1)),
            ("embedding_multiplier", json!(1.0)),
            ("attention_multiplier", json!(null)),
            ("rope_interleaved", json!(false)),
            ("add_cross_attention", json!(false)),
            ("pruned_heads", json!({})),
            ("bad_words_ids", json!([[7]])),
            ("transformers.js_config", json!({"dtype": "q4"})),
            ("_name_or_path", json!("Qwen/Qwen3-0.6B")),
        ] {
            let mut json = qwen3();
            json[key] = value;
            read(&json).expect(key);
        }
        let mut switched_off = qwen3();
        switched_off["sliding_window"] = json!(16);
        read(&switched_off).expect("use_sliding_window is false");
        switched_off["use_sliding_window"] = json!(true);
        assert!(read(&switched_off).is_err());
        // Newer files have θ in `rope_parameters` only.
        let mut nested = without(qwen3(), "rope_theta");
        nested["rope_parameters"] = json!({"rope_type": "default", "rope_theta": 5e5});
        assert_eq!(read(&nested).unwrap().rope_theta, 5e5);
        nested["rope_scaling"] = json!({"rope_type": "default", "rope_theta": 1e4});
        let error = read(&nested).unwrap_err().to_string();
        assert!(error.contains("`rope_theta`"), "{error}");
    }

    #[test]
    fn a_missing_head_size_is_that_of_the_width() {
        for head_dim in [None, Some(json!(null))] {
            let mut json = llama();
            if let Some(head_dim) = head_dim {
                json["head_dim"] = head_dim;
            }
            assert_eq!(read(&json).unwrap().head_dim, 8);
            json["num_attention_heads"] = json!(6);
            let error = read(&json).unwrap_err().to_string();
            assert!(
                error.contains("`head_dim`") && error.contains("missing"),
                "{error}"
            );
        }
    }

    /// The defaults of other programs' models, of which only some are this crate's.
    #[test]
    fn missing_keys_have_the_defaults_of_their_model() {
        let theta = without(llama(), "rope_theta");
        assert_eq!(read(&theta).unwrap().rope_theta, 10_000.0);
        let tied = without(llama(), "tie_word_embeddings");
        assert!(!read(&tied).unwrap().tie_word_embeddings);
        let kv = without(llama(), "num_key_value_heads");
        assert_eq!(read(&kv).unwrap().num_key_value_heads, 8);
        let error = read(&without(qwen3(), "num_key_value_heads")).unwrap_err();
        assert!(
            error.to_string().contains("`num_key_value_heads`"),
            "{error}"
        );
        let mut switched_on = without(qwen3(), "sliding_window");
        switched_on["use_sliding_window"] = json!(true);
        let mut mistral = without(qwen3(), "sliding_window");
        mistral["model_type"] = json!("mistral");
        mistral["architectures"] = json!(["MistralForCausalLM"]);
        for json in [
            &switched_on,
            &mistral,
            &without(mistral.clone(), "model_type"),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(
                error.contains("`sliding_window`") && error.contains("4096"),
                "{error}"
            );
        }
        // Mistral's window has no switch.
        mistral["sliding_window"] = json!(16);
        assert!(read(&mistral).is_err());
        mistral["sliding_window"] = json!(null);
        read(&mistral).expect("no window");
        let mut short = without(mistral, "sliding_window");
        short["max_position_embeddings"] = json!(4096);
        read(&short).expect("a window of all positions");
    }

    /// What a file leaves to its family is taken from it, so it must name one, and one only.
    #[test]
    fn a_file_names_its_family() {
        read(&without(llama(), "model_type")).expect("the architecture names it");
        read(&without(llama(), "architectures")).expect("the type names it");
        for (architectures, field) in [
            (json!(null), "model_type"),
            (json!([]), "architectures"),
            (
                json!(["LlamaForCausalLM", "Qwen3ForCausalLM"]),
                "architectures",
            ),
        ] {
            let mut json = without(llama(), "model_type");
            json["architectures"] = architectures;
            let error = read(&json).unwrap_err().to_string();
            assert!(error.contains(&format!("`{field}`")), "{error}");
        }
        let mut two = llama();
        two["architectures"] = json!(["Qwen3ForCausalLM"]);
        let error = read(&two).unwrap_err().to_string();
        assert!(error.contains("[LlamaForCausalLM]"), "{error}");
    }

    /// Names and values of a file are printed, so they are short and cannot control a terminal.
    #[test]
    fn what_a_file_holds_is_shown_safely() {
        let mut json = llama();
        json["\u{1b}[2J"] = json!("\u{1b}x".repeat(1000));
        let error = read(&json).unwrap_err().to_string();
        assert!(!error.contains('\u{1b}') && error.len() < 300, "{error}");
    }
}
