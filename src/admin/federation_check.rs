//! `hearth admin federation-check`: each step as it is taken, and at the end what has to be done.

use tokio::sync::mpsc;

use super::{
    AdminContext, CheckStep, Failure, Went,
    lists::{printable, write_json},
    say,
};
use crate::config::cli::{CheckFederation, CheckTarget};

impl AdminContext<'_> {
    /// Fails where something has to be done, or nobody else could be asked.
    pub(super) async fn check_federation(&self, check: CheckFederation) -> Result<(), Failure> {
        let CheckFederation { target, listing } = check;
        let (told, mut steps) = mpsc::unbounded_channel();
        let checking = async {
            let done = self.federation.check(self.config, self.random.clone(), target.as_ref(), told).await;
            done.map_err(self.explain())
        };
        let saying = async {
            let mut bad: usize = 0;
            while let Some(step) = steps.recv().await {
                bad += usize::from(step.went == Went::Badly);
                let line = if listing.json { format!("{}\n", write_json(&step)?) } else { shown(&step) };
                say(&line)?;
            }
            Ok::<usize, Failure>(bad)
        };
        match tokio::try_join!(checking, saying)? {
            ((), 0) => Ok(()),
            ((), bad) => Err(Failure::new(summary(target.as_ref(), bad))),
        }
    }
}

/// As it stands on the terminal. Part of it is what others have written.
fn shown(step: &CheckStep) -> String {
    let mark = match step.went {
        Went::Well => "ok  ",
        Went::Oddly => "note",
        Went::Badly => "BAD ",
    };
    let advice = step.advice.as_ref().map(|advice| format!("      -> {}.\n", printable(advice))).unwrap_or_default();
    format!("{mark}  {}\n{advice}", printable(&step.text))
}

fn summary(target: Option<&CheckTarget>, bad: usize) -> String {
    let count = if bad == 1 { "one thing is".to_owned() } else { format!("{bad} things are") };
    let of = match target {
        None => "others may not reach this server".to_owned(),
        Some(CheckTarget::Server(server)) => format!("this server and {server} may not reach each other"),
        Some(CheckTarget::Room(_)) => "not all servers of the room have what is here".to_owned(),
    };
    format!("{count} marked BAD: {of}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_a_line_and_its_advice_another() {
        let step =
            CheckStep { went: Went::Badly, text: "it\u{1b}[2J says".to_owned(), advice: Some("Do\nthat".to_owned()) };
        assert_eq!(shown(&step), "BAD   it\u{fffd}[2J says\n      -> Do\u{fffd}that.\n");
        let step = CheckStep { went: Went::Well, text: "fine".to_owned(), advice: None };
        assert_eq!(shown(&step), "ok    fine\n");
        let json = serde_json::to_value(&step).unwrap();
        assert_eq!(json, serde_json::json!({ "went": "well", "text": "fine" }));
        assert!(summary(None, 1).starts_with("one thing is marked BAD"));
    }
}
