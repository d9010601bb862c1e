//! A side of a comparison in a process of its own.
//!
//! The program runs itself again with a hidden argument; the child then answers questions, one line
//! each, until its input ends. So two sides can each own a signal handler or a fresh address space
//! and still be measured in alternation: only the one that was asked runs, and it takes the time
//! itself.

use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// The argument that turns a run of the program into one side.
const HIDDEN: &str = "--measured-side";

/// The side this process was started to be, if any.
pub(crate) fn requested() -> Option<String> {
    let mut args = env::args();
    args.find(|arg| arg == HIDDEN)?;
    args.next()
}

/// Answers every question on standard input until it ends.
pub(crate) fn serve(mut answer: impl FnMut(&str) -> Vec<f64>) {
    for question in io::stdin().lines() {
        let answers: Vec<String> = answer(&question.unwrap())
            .iter()
            .map(f64::to_string)
            .collect();
        println!("{}", answers.join(" "));
    }
}

/// A running side.
pub(crate) struct Side {
    child: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Side {
    /// Starts this program again as the side `name`.
    pub(crate) fn spawn(name: &str) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([HIDDEN, name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            questions: child.stdin.take(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    /// Asks the side one question and waits for its figures.
    pub(crate) fn ask(&mut self, question: &str) -> Vec<f64> {
        let mut line = String::new();
        writeln!(self.questions.as_mut().unwrap(), "{question}").unwrap();
        self.answers.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the side ended before it answered");
        line.split_whitespace()
            .map(|figure| figure.parse().unwrap())
            .collect()
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // The end of its input is what ends the child.
        self.questions = None;
        let _ = self.child.wait();
    }
}
