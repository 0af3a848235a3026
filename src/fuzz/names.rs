//! Names and texts of any script, as search and the user directory cut them into words.

use ruma::UserId;

use super::{cases, dice::Dice, mutate};
use crate::ground::words::{fold, of_user, split, wanted};

const NAMES: &[&str] = &[
    "Anna Maria Berg",
    "\u{1f98a}Anna\u{1f98a} Berg",
    "O'Neill, Tip",
    "Jose\u{301} \u{c6}r\u{f8}sk\u{f8}bing",
    "\u{39f}\u{394}\u{3a5}\u{3a3}\u{3a3}\u{395}\u{3a5}\u{3a3}",
    "\u{41e}\u{43b}\u{44c}\u{433}\u{430} \u{41f}\u{435}\u{442}\u{440}\u{43e}\u{432}\u{430}",
    "\u{5c71}\u{7530}\u{592a}\u{90ce}",
    "\u{ae40}\u{ccad}\u{c218}",
    "\u{645}\u{631}\u{64a}\u{645} \u{62d}\u{633}\u{646}",
    "\u{905}\u{928}\u{941}\u{937}\u{94d}\u{915}\u{93e} \u{936}\u{930}\u{94d}\u{92e}\u{93e}",
    "\u{e19}\u{e49}\u{e33}",
    "\u{fdfa}\u{fdfa}",
    "I\u{307}\u{130}\u{131}",
    "?! ...",
    "a\u{300}\u{301}\u{302}\u{303}\u{304}",
];

fn name(dice: &mut Dice) -> String {
    let name = dice.pick(NAMES).to_owned();
    match dice.below(4) {
        0 => name.repeat(dice.small(500)),
        1 => format!("{}{}", mutate::junk(dice), mutate::text(dice, &name)),
        _ => mutate::text(dice, &name),
    }
}

#[test]
fn words_are_found_in_any_text_and_again_in_what_was_found() {
    for mut case in cases("words", 4) {
        let text = name(&mut case.dice);
        let tokens: Vec<String> = split(&text).map(|token| token.text).collect();
        // A character is eighteen at most when it is taken apart, of three bytes each.
        let room = 60 * text.len();
        assert!(tokens.iter().map(String::len).sum::<usize>() <= room, "{text:?} grows without end");
        for token in &tokens {
            let again: Vec<String> = split(token).map(|token| token.text).collect();
            assert!(!token.is_empty() && again == [token.clone()], "{text:?}: {token:?} is cut into {again:?}");
        }
        let folded = fold(&text);
        assert!(folded.len() <= room, "{text:?} grows without end");
        assert_eq!(fold(&folded), folded, "{text:?}");
    }
}

#[test]
fn whoever_has_a_name_is_found_by_it() {
    let user_id = <&UserId>::try_from("@anna.b:localhost").unwrap();
    for mut case in cases("names", 3) {
        let name = name(&mut case.dice);
        let kept = of_user(user_id, Some(&name));
        assert!(kept.len() <= 40 && kept.iter().all(|word| word.text.chars().count() <= 256), "{name:?}: {kept:?}");
        let looked_for = wanted(&name);
        assert!(looked_for.len() <= 2, "{name:?}: {looked_for:?}");
        let has = |beginning: &str| kept.iter().any(|word| word.text.starts_with(beginning));
        let found = |wanted: &crate::ground::words::WantedPrefix| {
            has(&wanted.beginning) && wanted.with.as_deref().is_none_or(has)
        };
        let is_identifier = name.trim().starts_with('@') && name.contains(':');
        let is_found = looked_for.is_empty() || is_identifier || looked_for.iter().any(found);
        assert!(is_found, "{name:?} is kept as {kept:?} and looked for as {looked_for:?}");
    }
}
