//! A failure that repeats is logged once.

/// The failure of a task that tries again and again, since it last succeeded.
#[derive(Debug, Default)]
pub struct Outage(Option<String>);

impl Outage {
    /// Records a failure; `true` means that the task had not failed before.
    pub fn begins(&mut self) -> bool {
        self.0.replace(String::new()).is_none()
    }

    /// Records a failure; `true` means that its text differs from the last one.
    pub fn changes(&mut self, text: &str) -> bool {
        let changed = self.0.as_deref() != Some(text);
        if changed {
            self.0 = Some(text.to_owned());
        }
        changed
    }

    /// Records a success; `true` means that the task had failed before.
    pub fn ends(&mut self) -> bool {
        self.0.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_repeats_is_new_once() {
        let mut outage = Outage::default();
        assert!(!outage.ends());
        assert!(outage.changes("refused") && !outage.changes("refused"));
        assert!(outage.changes("timed out") && outage.changes("refused"));
        assert!(outage.ends() && !outage.ends());
        assert!(outage.changes("refused"));
    }

    #[test]
    fn an_outage_begins_once_and_ends_once() {
        let mut outage = Outage::default();
        assert!(outage.begins() && !outage.begins());
        assert!(outage.ends() && outage.begins());
    }
}
