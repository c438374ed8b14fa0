//! How a run ended.

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code; -1 where a signal ended it.
    pub code: i32,
    /// Standard output and standard error.
    pub text: String,
}

impl Outcome {
    /// Asserts that all migrations are Ready.
    #[track_caller]
    pub fn ready(&self) -> &Self {
        assert_eq!(self.code, 0, "vmferry did not end well:\n{}", self.text);
        self
    }

    /// Asserts that it ended with this code and said each of these texts.
    #[track_caller]
    pub fn refused(&self, code: i32, texts: &[&str]) -> &Self {
        assert_eq!(self.code, code, "vmferry ended otherwise:\n{}", self.text);
        for text in texts {
            assert!(self.text.contains(text), "vmferry did not say `{text}`:\n{}", self.text);
        }
        assert!(!self.text.contains("panicked"), "vmferry panicked:\n{}", self.text);
        self
    }
}
