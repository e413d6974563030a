//! The Lambda runtime API as the service offers it to a function, and the function as its child.

#![allow(clippy::missing_errors_doc)]

use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::drill_support::{Answer, Request, lock, serve};
use crate::process::{PATIENCE, Process};

/// A running function.
#[derive(Debug)]
pub struct Function {
    /// Its process.
    pub process: Process,
    events: Sender<(String, Duration)>,
    answers: Receiver<Outcome>,
}

/// What a function posted for an invocation: its answer, or its error.
pub type Outcome = std::result::Result<Value, Value>;

impl Function {
    /// Starts `command` as a function.
    pub fn start(mut command: Command) -> Result<Self> {
        let (events, pending) = channel();
        let (answered, answers) = channel();
        let (pending, answered) = (Arc::new(Mutex::new(pending)), Mutex::new(answered));
        let address = serve(move |request| runtime_api(request, &pending, &answered))?;
        command
            .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", "verifier")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")
            .env("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/verifier")
            .env("AWS_LAMBDA_LOG_STREAM_NAME", "test");
        Ok(Self { process: Process::start(command)?, events, answers })
    }

    /// Invokes it with `left` until its deadline.
    pub fn invoke(&self, event: &Value, left: Duration) -> Result<Outcome> {
        self.events.send((event.to_string(), left)).context("the runtime API is gone")?;
        let answer = self.answers.recv_timeout(PATIENCE);
        answer.with_context(|| format!("no answer to {event}\n{}", self.process.output()))
    }
}

fn runtime_api(
    request: &Request,
    pending: &Mutex<Receiver<(String, Duration)>>,
    answered: &Mutex<Sender<Outcome>>,
) -> Answer {
    let accepted = Answer { status: 202, headers: Vec::new(), body: b"{}".to_vec() };
    let body = || serde_json::from_slice(&request.body).unwrap_or(Value::Null);
    if request.path.ends_with("/invocation/next") {
        // Blocks, as the service does until there is an event.
        let Ok((event, left)) = lock(pending).recv() else {
            return Answer { status: 410, ..accepted };
        };
        let end = SystemTime::now() + left;
        let end = end.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let headers = vec![
            ("Content-Type", "application/json".to_owned()),
            ("Lambda-Runtime-Aws-Request-Id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd".to_owned()),
            ("Lambda-Runtime-Deadline-Ms", end.to_string()),
            (
                "Lambda-Runtime-Invoked-Function-Arn",
                "arn:aws:lambda:eu-central-1:1:function:verifier".to_owned(),
            ),
        ];
        return Answer { status: 200, headers, body: event.into_bytes() };
    }
    let outcome = if request.path.ends_with("/response") { Ok(body()) } else { Err(body()) };
    // A test that has ended does not listen any more.
    drop(lock(answered).send(outcome));
    accepted
}
