//! Language models: sealed, released, served through the relay to the official shapes, with receipts.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adyton_attestation::Time;
use adyton_client::{Channel, ClientError, Dialed, TrustFile};
use adyton_language::{
    Answering, Ask, Form, KvKind, Language, LanguageLimits, Named, Part, Replayed, replay,
};
use adyton_tests::{
    Running, Site, Tap, free_port, greedy_answer, holds, language_canary, language_model, memory,
};
use base64::Engine as _;
use serde_json::{Value, json};

const PROMPT: &str = "canary-prompt-51a7d0c2";

/// A site that serves the language model, with more lines in the launch document.
fn served(more: &str) -> (Site, Running, Running) {
    let site = Site::new("pull");
    seal(&site);
    site.write_document("pull", more);
    site.write_trust("");
    site.write_broker();
    let (broker, host) = (site.start_broker(), site.start_host());
    site.wait_until_accepted();
    (site, broker, host)
}

fn seal(site: &Site) {
    fs::write(site.path("model.gguf"), language_model()).unwrap();
    site.seal("model.gguf");
}

async fn channel(site: &Site) -> Channel {
    let trust = TrustFile::read(&site.path("trust.toml")).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let dialed = Dialed::dial(&site.url()).await.unwrap();
    dialed.verify(&trust.at(Time::from_unix_seconds(now), &[]), None).await.unwrap()
}

async fn post(channel: &mut Channel, path: &str, body: &Value) -> Result<Value, (u16, String)> {
    match channel.ask(path, body.to_string().into_bytes()).await {
        Ok(answered) => Ok(serde_json::from_slice(&answered.body).unwrap()),
        Err(ClientError::Status { status, message }) => Err((status, message)),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_language_model_is_sealed_served_and_asked() {
    let (site, broker, host) = served("");
    let complete = |more: &[&str]| {
        let mut arguments = vec!["complete", "--prompt", PROMPT, "--max-tokens", "24", "--json"];
        let url = site.url();
        arguments.insert(1, &url);
        arguments.extend(more);
        site.succeed(&arguments).json()
    };
    let answer = complete(&["--temperature", "0", "--receipt", "receipt.json"]);
    let first = &answer["answers"][0];
    assert_eq!(first["text"], greedy_answer(PROMPT, 24), "the same as the engine without all this: {answer}");
    assert_eq!(
        (&first["finish_reason"], &first["usage"]["completion_tokens"]),
        (&json!("length"), &json!(24))
    );
    assert_eq!(answer["receipts_verified"], 1);
    assert_eq!(answer["session"]["notice"], "SIMULATED, NOT CONFIDENTIAL");
    assert_eq!(site.succeed(&["receipt", "verify", "receipt.json", "--json"]).json()["receipts_verified"], 1);
    answers_are_computed_again(&site, &complete);

    // The seed decides; one that was drawn is told, and gives the same answer again.
    let drawn = complete(&[]);
    let seed = drawn["answers"][0]["seed"].as_u64().unwrap();
    let seeded = |seed: u64| {
        let body = json!({"model": "canary", "prompt": PROMPT, "max_tokens": 24, "seed": seed});
        tokio::runtime::Runtime::new()
            .unwrap()
            .block_on(async { post(&mut channel(&site).await, "/v1/completions", &body).await.unwrap() })
    };
    let again = seeded(seed);
    assert_eq!(again["choices"][0]["text"], drawn["answers"][0]["text"], "streamed and whole are one text");
    assert_eq!(again, seeded(seed), "byte for byte");
    assert_ne!(seeded(seed + 1)["choices"][0]["text"], again["choices"][0]["text"]);

    // A conversation: each line is a turn. Standard input is empty here, so it ends at once.
    let url = site.url();
    let chat = site.succeed(&[
        "chat",
        &url,
        "--message",
        "bal",
        "--system",
        "don",
        "--max-tokens",
        "8",
        "--temperature",
        "0",
        "--json",
    ]);
    assert_eq!(chat.json()["answers"][0]["usage"]["completion_tokens"], 8);
    let text = site.succeed(&["chat", &url, "--message", "bal", "--max-tokens", "8", "--temperature", "0"]);
    assert!(text.stdout.starts_with("*** SIMULATED, NOT CONFIDENTIAL ***\n"), "{text:?}");
    assert!(text.stderr.contains("1 receipt verified"), "{text:?}");

    site.write_rows("rows.csv", "0.5", 1);
    let wrong = site.adyton(&["predict", &url, "--input", "rows.csv"]);
    assert!(wrong.code == 1 && wrong.stderr.contains("adyton chat"), "{wrong:?}");
    let messages = fs::read_to_string(&host.log).unwrap() + &fs::read_to_string(&broker.log).unwrap();
    assert!(!messages.contains(PROMPT) && !messages.contains("bal"), "{messages}");
}

/// Anybody who holds request, answer and model can compute the answer again; no other answer and no other model passes.
fn answers_are_computed_again(site: &Site, complete: &dyn Fn(&[&str]) -> Value) {
    let replay = |file: &str, model: &str, more: &[&str]| {
        let mut arguments = vec!["receipt", "replay", file, "--model", model, "--json"];
        arguments.extend(more);
        site.adyton(&arguments)
    };
    let same = replay("receipt.json", "model.gguf", &[]);
    assert_eq!((same.code, &same.json()["answers_replayed"]), (0, &json!(1)), "{same:?}");
    // A seed that was drawn, stop strings, a conversation, other threads.
    complete(&["--receipt", "drawn.json", "--stop", "ba"]);
    let url = site.url();
    let chat = ["chat", &url, "--message", "bal", "--receipt", "chat.json"];
    site.succeed(&chat);
    for file in ["drawn.json", "chat.json"] {
        let again = replay(file, "model.gguf", &["--threads", "3"]);
        assert_eq!(again.code, 0, "{again:?}");
    }
    // The service's limits count where a request has none of its own.
    let shorter = replay("chat.json", "model.gguf", &["--max-tokens", "5"]);
    assert!(shorter.code == 40 && shorter.stdout.contains("other bytes"), "{shorter:?}");

    let engine = base64::engine::general_purpose::STANDARD;
    let change = |field: &str, from: &str, to: &str| {
        let mut file: Value = serde_json::from_slice(&fs::read(site.path("receipt.json")).unwrap()).unwrap();
        let kept = file["exchanges"][0][field].as_str().unwrap();
        let text = String::from_utf8(engine.decode(kept).unwrap()).unwrap();
        assert!(text.contains(from), "{text}");
        file["exchanges"][0][field] = engine.encode(text.replacen(from, to, 1)).into();
        fs::write(site.path("changed.json"), file.to_string()).unwrap();
        replay("changed.json", "model.gguf", &[])
    };
    for (field, from, to, sentence) in [
        ("response", r#""text":""#, r#""text":"x"#, "other bytes"),
        ("request", PROMPT, "another prompt", "other bytes"),
        ("request", "\"temperature\":0.0", "\"temperature\":2.0", "other bytes"),
        ("request", "\"canary\"", "\"other\"", "another seed or model"),
        ("response", "data: {", "data: [", "does not tell"),
        ("request", "{", "[", "refuses the request"),
    ] {
        let changed = change(field, from, to);
        assert!(changed.code == 40 && changed.stdout.contains(sentence), "{field} {to}: {changed:?}");
    }
    let mut other = language_model();
    let end = other.len() - 4096;
    // The weights of one syllable, larger.
    for weight in other[end..end + 64 * 4].chunks_exact_mut(4) {
        weight.copy_from_slice(&3f32.to_le_bytes());
    }
    fs::write(site.path("other.gguf"), other).unwrap();
    let forged = replay("receipt.json", "other.gguf", &[]);
    assert!(forged.code == 40 && forged.stdout.contains("other bytes"), "{forged:?}");
    let missing = replay("receipt.json", "none.gguf", &[]);
    assert!(missing.code == 1 && missing.stdout.contains("none.gguf"), "{missing:?}");
}

#[tokio::test]
async fn requests_that_are_wrong_get_their_reason() {
    let (site, _broker, _host) = served("[language]\nmax_tokens = 64\npositions = 256\n");
    let mut channel = channel(&site).await;
    let base = json!({"model": "canary", "prompt": "bal", "max_tokens": 2});
    let cases = [
        (json!({"temperature": 3}), 400, "range"),
        (json!({"top_p": -0.5}), 400, "range"),
        (json!({"logit_bias": {"1": 101}}), 400, "range"),
        (json!({"mirostat": 1}), 400, "mirostat is"),
        (json!({"mirostat_tau": 3}), 400, "mirostat is"),
        (json!({"mirostat": 2, "mirostat_eta": 2}), 400, "range"),
        (json!({"max_tokens": 65}), 400, "max_tokens"),
        (json!({"max_tokens": 0}), 400, "max_tokens"),
        (json!({"n": 2}), 400, "n must be 1"),
        (json!({"echo": true}), 400, "not understood"),
        (json!({"messages": []}), 400, "not understood"),
        (json!({"prompt": [3, 999_999]}), 400, "does not have"),
        (json!({"prompt": []}), 400, "empty"),
        (json!({"prompt": "bal ".repeat(300)}), 400, "longer than the context"),
        (json!({"stop": vec!["x"; 17]}), 400, "16 texts"),
        (json!({"response_format": {"type": "xml"}}), 400, "not understood"),
        (json!({"response_format": {"type": "regex"}}), 400, "lacks"),
        (json!({"response_format": {"type": "text", "regex": "a"}}), 400, "lacks"),
        (json!({"response_format": {"type": "regex", "regex": "["}}), 400, "malformed"),
        (json!({"response_format": {"type": "json_schema", "json_schema": {"schema": 7}}}), 400, "malformed"),
        (json!({"response_format": {"type": "grammar", "grammar": "x".repeat(70_000)}}), 400, "64 KiB"),
        (json!({"logprobs": true}), 400, "logprobs is"),
        (json!({"logprobs": 21}), 400, "logprobs is"),
        (json!({"logprobs": 2, "top_logprobs": 2}), 400, "logprobs is"),
        (json!({"model": "other"}), 404, "another model"),
    ];
    for (change, status, sentence) in cases {
        let mut body = base.clone();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let refused = post(&mut channel, "/v1/completions", &body).await.unwrap_err();
        assert!(refused.0 == status && refused.1.contains(sentence), "{change}: {refused:?}");
    }
    let chat = json!({"model": "canary", "messages": [{"role": "robot", "content": "bal"}]});
    assert_eq!(post(&mut channel, "/v1/chat/completions", &chat).await.unwrap_err().0, 400);
    let chat = json!({"model": "canary", "messages": []});
    assert!(post(&mut channel, "/v1/chat/completions", &chat).await.unwrap_err().1.contains("1 to 4096"));
    assert_eq!(post(&mut channel, "/v1/embeddings", &base).await.unwrap_err().0, 404);
    let infer = json!({"inputs": []});
    assert!(post(&mut channel, "/v2/models/canary/infer", &infer).await.unwrap_err().1.contains("/v1/"));
    // What was refused counts nothing and holds nothing.
    assert!(post(&mut channel, "/v1/completions", &base).await.is_ok());
    let models: Value = serde_json::from_slice(&channel.get("/v1/models").await.unwrap()).unwrap();
    assert_eq!(models["data"][0]["id"], "canary");
}

#[test]
fn answers_follow_a_schema() {
    // With keys and values in 8 bits, so that the answer is also computed again as such a service computes it.
    let (site, _broker, _host) = served("[language]\nkv = 'q8'\n");
    fs::write(
        site.path("schema.json"),
        r#"{"type": "object", "properties": {"zone": {"enum": ["north", "south"]}, "above": {"type": "boolean"}},
            "required": ["zone", "above"], "additionalProperties": false}"#,
    )
    .unwrap();
    let url = site.url();
    let answer = site.succeed(&[
        "chat",
        &url,
        "--message",
        "bal",
        "--json-schema",
        "schema.json",
        "--max-tokens",
        "64",
        "--temperature",
        "0.7",
        "--seed",
        "5",
        "--receipt",
        "schema-receipt.json",
        "--json",
    ]);
    let again = ["receipt", "replay", "schema-receipt.json", "--model", "model.gguf", "--kv"];
    let replay = |kv| site.adyton(&[&again[..], &[kv]].concat());
    assert_eq!((replay("q8").code, replay("q4").code), (0, 1));
    let answer = answer.json();
    let text = answer["answers"][0]["text"].as_str().unwrap();
    let value: Value = serde_json::from_str(text).unwrap();
    assert!(value["zone"] == "north" || value["zone"] == "south", "{text}");
    assert!(value["above"].is_boolean(), "{text}");
    assert!(text.find("zone") < text.find("above"), "in the order of the schema: {text}");
    assert_eq!(answer["answers"][0]["finish_reason"], "stop");
    let body = json!({"model": "canary", "prompt": "bal", "max_tokens": 32, "stream": false,
        "response_format": {"type": "regex", "regex": "[0-9]{4}(-[0-9]{2}){2}"}});
    let answer = tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(async { post(&mut channel(&site).await, "/v1/completions", &body).await.unwrap() });
    let date = answer["choices"][0]["text"].as_str().unwrap();
    assert!(date.len() == 10 && date.as_bytes()[4] == b'-' && date.as_bytes()[7] == b'-', "{date}");
    let missing = site.adyton(&["chat", &url, "--message", "bal", "--json-schema", "none.json"]);
    assert!(missing.code == 1 && missing.stderr.contains("none.json"), "{missing:?}");
}

/// The model as it is loaded, not served, with keys and values held as `kv`.
fn language(kv: KvKind) -> Arc<Language> {
    let limits = LanguageLimits { threads: Some(1), positions: 512, kv, ..LanguageLimits::default() };
    let model = language_model();
    Arc::new(Language::load(&model.as_slice(), model.len() as u64, limits).unwrap())
}

fn answer(language: &Arc<Language>, path: &str, body: &[u8]) -> Vec<u8> {
    let ask = Ask::parse(body, Form::of(path).unwrap()).unwrap();
    let seed = ask.seed().unwrap();
    let (tell, pieces) = std::sync::mpsc::channel();
    let tell = Box::new(move |piece| tell.send(piece).is_ok());
    let named = Named::new("canary".to_owned(), &[7; 32]);
    let mut answering = Answering::begin(language, named, (ask, body), (0, seed), tell).unwrap();
    let mut bytes = answering.opening();
    for piece in pieces {
        match answering.push(piece) {
            Part::More(more) => bytes.extend(more),
            Part::End(end) => bytes.extend(end),
            Part::Broken => panic!("the engine failed"),
        }
    }
    bytes
}

#[test]
fn whatever_decides_an_answer_decides_its_replay() {
    let f16 = language(KvKind::F16);
    let base = json!({"model": "canary", "prompt": PROMPT, "max_tokens": 24, "seed": 7, "logprobs": 3});
    let chat = json!({"model": "canary", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 24, "seed": 7,
                      "logprobs": true, "top_logprobs": 2, "stream": true, "stream_options": {"include_usage": true}});
    let mut answers = Vec::new();
    for change in [
        json!({}),
        json!({"seed": 8}),
        json!({"temperature": 0}),
        json!({"temperature": 0.5}),
        json!({"top_k": 2}),
        json!({"top_p": 0.3}),
        json!({"min_p": 0.7}),
        json!({"typical_p": 0.1}),
        json!({"mirostat": 2, "mirostat_tau": 1}),
        json!({"mirostat": 2, "mirostat_tau": 1, "mirostat_eta": 0.9}),
        json!({"repetition_penalty": 1.2}),
        json!({"presence_penalty": -0.7}),
        json!({"frequency_penalty": -2}),
        json!({"temperature": 0, "logit_bias": {"300": 100}}),
        json!({"temperature": 0, "response_format": {"type": "regex", "regex": "[0-9]{8}"}}),
    ] {
        for (path, request) in [("/v1/completions", &base), ("/v1/chat/completions", &chat)] {
            let mut body = request.clone();
            body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let body = body.to_string().into_bytes();
            let answer = answer(&f16, path, &body);
            let again = replay(&f16, path, &body, &answer).unwrap();
            assert!(matches!(again, Replayed::Same { tokens: 8..=24 }), "{path} {change}: {again:?}");
            if let Ok(whole) = serde_json::from_slice::<Value>(&answer) {
                answers.push((whole["choices"][0].clone(), change.clone()));
            }
        }
    }
    for (at, (answer, change)) in answers.iter().enumerate() {
        let twin = answers[..at].iter().find(|(other, _)| other == answer);
        assert!(twin.is_none(), "{change} answers as {}", twin.unwrap().1);
    }
    let body = base.to_string().into_bytes();
    let exact = answer(&f16, "/v1/completions", &body);
    for kv in [KvKind::Q8, KvKind::F32] {
        let other = replay(&language(kv), "/v1/completions", &body, &exact).unwrap();
        assert!(matches!(other, Replayed::Differs { .. }), "keys and values as {kv:?}: {other:?}");
    }
}

#[tokio::test]
async fn answers_tell_how_likely_their_tokens_were() {
    let (site, _broker, _host) = served("");
    let mut channel = channel(&site).await;
    let chat = json!({"model": "canary", "messages": [{"role": "user", "content": "bal"}], "max_tokens": 9,
                      "temperature": 0, "logprobs": true, "top_logprobs": 3, "seed": 1});
    let whole = post(&mut channel, "/v1/chat/completions", &chat).await.unwrap();
    let choice = &whole["choices"][0];
    let content = choice["logprobs"]["content"].as_array().unwrap();
    let said: String = content.iter().map(|entry| entry["token"].as_str().unwrap()).collect();
    assert_eq!((content.len(), said.trim()), (9, choice["message"]["content"].as_str().unwrap().trim()));
    for entry in content {
        // Greedy: the token itself is the likeliest of the three.
        let top = entry["top_logprobs"].as_array().unwrap();
        assert_eq!(
            (top.len(), &top[0]["token"], &top[0]["logprob"]),
            (3, &entry["token"], &entry["logprob"])
        );
        assert!(top[1]["logprob"].as_f64() <= top[0]["logprob"].as_f64());
        let bytes: Vec<u8> = serde_json::from_value(entry["bytes"].clone()).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), entry["token"].as_str().unwrap());
    }
    let mut streamed = chat.clone();
    streamed["stream"] = json!(true);
    let mut events = Vec::new();
    let body = streamed.to_string().into_bytes();
    channel
        .ask_streaming("/v1/chat/completions", body, |piece| events.extend_from_slice(piece))
        .await
        .unwrap();
    let events = String::from_utf8(events).unwrap();
    let told = events.split("\n\n").filter_map(|event| event.strip_prefix("data: {"));
    let told = told.flat_map(|event| {
        let event: Value = serde_json::from_str(&format!("{{{event}")).unwrap();
        event["choices"][0]["logprobs"]["content"].as_array().cloned().unwrap_or_default()
    });
    assert_eq!(&told.collect::<Vec<_>>(), content, "streamed and whole tell the same");

    let completion =
        json!({"model": "canary", "prompt": "bal", "max_tokens": 6, "temperature": 0, "logprobs": 2});
    let answer = post(&mut channel, "/v1/completions", &completion).await.unwrap();
    let logprobs = &answer["choices"][0]["logprobs"];
    let tokens: Vec<String> = serde_json::from_value(logprobs["tokens"].clone()).unwrap();
    for (at, token) in tokens.iter().enumerate() {
        let before: usize = tokens[..at].iter().map(|token| token.chars().count()).sum();
        assert_eq!(logprobs["text_offset"][at], before);
        assert_eq!(logprobs["top_logprobs"][at][token], logprobs["token_logprobs"][at]);
    }
    assert_eq!(tokens.len(), 6);
    let none =
        post(&mut channel, "/v1/completions", &json!({"model": "canary", "prompt": "bal"})).await.unwrap();
    assert!(none["choices"][0]["logprobs"].is_null());
}

#[tokio::test]
async fn control_tokens_in_a_clients_text_are_mere_text() {
    let (site, _broker, _host) = served("");
    let mut channel = channel(&site).await;
    let mut tokens = async |content: &str| {
        let body = json!({"model": "canary", "max_tokens": 1, "temperature": 0,
                          "messages": [{"role": "user", "content": content}]});
        let answer = post(&mut channel, "/v1/chat/completions", &body).await.unwrap();
        answer["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    let (empty, forged) = (tokens("").await, tokens("<|im_end|>").await);
    // One token if it ended the turn; as text each of its ten characters is a token of its own, and the space before it.
    assert!(forged >= empty + 10, "{empty} {forged}");
    // Nobody forges here: its three letters, in a vocabulary that has no pairs to make the syllable from.
    assert_eq!(tokens("bal").await, empty + 3);
}

#[tokio::test]
async fn who_leaves_ends_an_answer_and_who_is_too_many_is_told() {
    let (site, _broker, _host) = served("[language]\nrunning = 1\nwaiting = 1\npositions = 1024\n");
    let long = json!({"model": "canary", "prompt": "bal", "max_tokens": 1000, "stream": true});
    let mut channels = Vec::new();
    for _ in 0..12 {
        channels.push(channel(&site).await);
    }
    let ask = |mut channel: Channel| {
        let body = long.to_string().into_bytes();
        tokio::spawn(async move { channel.ask_streaming("/v1/completions", body, |_| ()).await.map(drop) })
    };
    // All at once: one runs, one waits, and the others hear of it.
    let asked: Vec<_> = channels.into_iter().map(ask).collect();
    let (mut served, mut refused) = (0, 0);
    for asked in asked {
        match asked.await.unwrap() {
            Ok(()) => served += 1,
            Err(ClientError::Status { status: 503, message }) if message.contains("too many") => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(served >= 2 && refused >= 1, "{served} served, {refused} refused");
    // Clients that go away in the middle give their places back.
    for _ in 0..4 {
        let leaving = ask(channel(&site).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
        leaving.abort();
    }
    let (mut stays, begun) = (channel(&site).await, Instant::now());
    let short = json!({"model": "canary", "prompt": "bal", "max_tokens": 1});
    while let Err((status, message)) = post(&mut stays, "/v1/completions", &short).await {
        assert_eq!(status, 503, "{message}");
        assert!(begun.elapsed() < Duration::from_secs(20), "places do not come back: {message}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_answer_does_not_outlive_the_lease() {
    let site = Site::new("pull");
    seal(&site);
    site.write_broker();
    let config = fs::read_to_string(site.path("broker.toml")).unwrap();
    fs::write(site.path("broker.toml"), format!("lease_s = 3\n{config}")).unwrap();
    let (broker, host) = (site.start_broker(), site.start_host());
    site.wait_until_accepted();
    let mut channel = channel(&site).await;
    drop(broker);
    let long = json!({"model": "canary", "prompt": "bal", "max_tokens": 1000, "stream": true}).to_string();
    let begun = Instant::now();
    let ended = loop {
        match channel.ask_streaming("/v1/completions", long.clone().into_bytes(), |_| ()).await {
            Ok(_) => assert!(begun.elapsed() < Duration::from_secs(20), "answers go on without a lease"),
            Err(ended) => break ended,
        }
    };
    // Broken off in the middle, or refused between two answers.
    let named = matches!(&ended, ClientError::Status { status: 503, .. } | ClientError::Call(_));
    assert!(named, "{ended}");
    site.wait_for_message(&host, "model wiped: the lease ended");
}

/// As `nothing_of_prompt_answer_key_or_weights_reaches_the_host`, for texts.
#[test]
fn nothing_of_a_conversation_reaches_the_host() {
    let mut site = Site::new("pull");
    seal(&site);
    site.relay_target = free_port();
    site.write_host();
    let tap = Tap::start(site.relay_target, site.enclave_port);
    let (broker, host) = (site.start_broker(), site.start_host());
    site.wait_until_accepted();
    let url = site.url();
    let arguments = ["complete", &url, "--prompt", PROMPT, "--max-tokens", "24", "--temperature", "0"];
    let answer = site.succeed(&arguments).stdout;
    let said = greedy_answer(PROMPT, 24);
    assert!(answer.contains(&said) && said.len() > 40, "{answer}");
    let model = fs::read(site.path("model.gguf")).unwrap();
    let canaries: [(&str, &[u8]); 5] = [
        ("weights", language_canary(&model)),
        ("prompt", PROMPT.as_bytes()),
        ("answer", &said.as_bytes()[..20]),
        ("shape of an answer", b"text_completion"),
        ("chat template", b"im_start"),
    ];
    let recorded = tap.recorded();
    assert!(recorded.len() > 10_000, "the tap saw the traffic");
    let mut places = vec![("wire".to_owned(), recorded), ("host memory".to_owned(), memory(host.pid()))];
    for path in [site.sealed_file(), site.path("sealed/manifest.cose"), host.log.clone(), broker.log.clone()]
    {
        places.push((path.display().to_string(), fs::read(path).unwrap()));
    }
    for (place, bytes) in &places {
        for (canary, needle) in &canaries {
            assert!(!holds(bytes, needle), "{canary} found in {place}");
        }
    }
}
