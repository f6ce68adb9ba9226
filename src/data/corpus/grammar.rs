//! The grammar of the stories: `stories.txt` parsed once, and the interpreter that writes one story with it.
//!
//! ```text
//! @plot name    a story: groups of lines between blank lines, in order; one line of each group is chosen, `-` is empty
//! @group name   a group that several plots use as {name}
//! @words a/b c  what fills the slots: {a} and {b} are two forms of one choice (`sing/sang`), {c} is a second choice
//!               from the same words
//!
//! {slot}  {Slot}       the choice made for the slot, as listed or with a capital
//! {a slot} {A slot}    the same after the article that suits it
//! [one|two|three]      one of these, which may hold slots
//! ```
//!
//! A choice is made when a story first needs it and kept to the story's end. No two choices of a story are the same
//! words.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::data::draws::Draws;

static GRAMMAR: LazyLock<Grammar> = LazyLock::new(|| Grammar::parse(include_str!("stories.txt")));

/// The text of a slot: form `form` of choice number `choice`, an entry of list number `words`.
#[derive(Clone, Copy, Debug)]
struct Slot {
    choice: usize,
    words: usize,
    form: usize,
}

#[derive(Debug, Default)]
struct Grammar {
    /// Each a list of groups, each a list of lines.
    plots: Vec<Vec<Vec<&'static str>>>,
    groups: HashMap<&'static str, Vec<&'static str>>,
    slots: HashMap<&'static str, Slot>,
    words: Vec<Vec<&'static str>>,
    choices: usize,
}

impl Grammar {
    /// # Panics
    /// Panics if the text does not follow the format.
    fn parse(text: &'static str) -> Self {
        let mut grammar = Self::default();
        let start = text.find("\n@").expect("stories.txt: no section");
        for section in text[start..].split("\n@").skip(1) {
            let (head, body) = section
                .split_once('\n')
                .expect("stories.txt: a heading alone");
            let (kind, name) = head
                .split_once(' ')
                .expect("stories.txt: a heading without a name");
            let lines = |group: &'static str| -> Vec<_> {
                let lines = group.lines().filter(|line| !line.starts_with('#'));
                lines.collect()
            };
            let groups = body.trim().split("\n\n").map(lines);
            let mut groups = groups.filter(|lines| !lines.is_empty());
            match kind {
                "plot" => grammar.plots.push(groups.collect()),
                "group" => {
                    let lines = groups.next().unwrap_or_default();
                    grammar.groups.insert(name, lines);
                }
                "words" => grammar.add_words(name, groups.flatten().collect()),
                _ => panic!("stories.txt: a section is a plot, a group or words, found `{kind}`"),
            }
        }
        grammar
    }

    fn add_words(&mut self, slots: &'static str, lines: Vec<&'static str>) {
        for forms in slots.split(' ') {
            for (form, slot) in forms.split('/').enumerate() {
                let (choice, words) = (self.choices, self.words.len());
                self.slots.insert(
                    slot,
                    Slot {
                        choice,
                        words,
                        form,
                    },
                );
            }
            self.choices += 1;
        }
        let entries = lines.iter().flat_map(|line| line.split(','));
        let entries = entries.map(str::trim).filter(|entry| !entry.is_empty());
        self.words.push(entries.collect());
    }
}

/// Writes one story in one line.
pub(super) fn story(draws: &mut Draws) -> String {
    let plot = &GRAMMAR.plots[draws.below(GRAMMAR.plots.len())];
    let mut story = Story::new(draws);
    let mut line = String::new();
    for group in plot {
        let text = story.group(group);
        if !line.is_empty() && !text.is_empty() {
            line.push(' ');
        }
        line += &text;
    }
    line
}

struct Story<'a> {
    draws: &'a mut Draws,
    /// The entry of each choice that has been made.
    chosen: Vec<Option<&'static str>>,
}

impl<'a> Story<'a> {
    fn new(draws: &'a mut Draws) -> Self {
        let chosen = vec![None; GRAMMAR.choices];
        Self { draws, chosen }
    }

    fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.draws.below(list.len())]
    }

    /// One of a group's lines, filled.
    fn group(&mut self, lines: &[&str]) -> String {
        match self.one_of(lines) {
            "-" => String::new(),
            line => self.fill(line),
        }
    }

    /// A line with its slots and alternatives replaced.
    fn fill(&mut self, line: &str) -> String {
        let mut out = String::new();
        let mut rest = line;
        while let Some(start) = rest.find(['{', '[']) {
            let is_slot = rest.as_bytes()[start] == b'{';
            let close = if is_slot { '}' } else { ']' };
            let end = rest
                .find(close)
                .unwrap_or_else(|| panic!("stories.txt: `{line}` lacks {close}"));
            let inside = &rest[start + 1..end];
            out += &rest[..start];
            if is_slot {
                out += &self.slot(inside);
            } else {
                let alternatives: Vec<&str> = inside.split('|').collect();
                let alternative = self.one_of(&alternatives);
                out += &self.fill(alternative);
            }
            rest = &rest[end + 1..];
        }
        out + rest
    }

    fn slot(&mut self, name: &str) -> String {
        if let Some((article, name)) = name.split_once(' ') {
            let word = self.slot(name);
            // No word of the lists has a first letter that disagrees with its sound, such as `hour`.
            let n = if word.starts_with(['a', 'e', 'i', 'o', 'u']) {
                "n"
            } else {
                ""
            };
            return format!("{article}{n} {word}");
        }
        let lower = name.to_ascii_lowercase();
        let (slot, group) = (GRAMMAR.slots.get(&*lower), GRAMMAR.groups.get(&*lower));
        let mut word = match (slot, group) {
            (Some(slot), _) => self.form(*slot).to_owned(),
            (None, Some(lines)) => self.group(lines),
            (None, None) => panic!("stories.txt: no slot is called `{name}`"),
        };
        if name.starts_with(|first: char| first.is_ascii_uppercase()) {
            word[..1].make_ascii_uppercase();
        }
        word
    }

    fn form(&mut self, slot: Slot) -> &'static str {
        let entry = self.chosen[slot.choice].unwrap_or_else(|| {
            let entries = GRAMMAR.words[slot.words].iter().copied();
            let free: Vec<_> = entries
                .filter(|entry| !self.chosen.contains(&Some(entry)))
                .collect();
            self.one_of(&free)
        });
        self.chosen[slot.choice] = Some(entry);
        let form = entry.split('/').nth(slot.form);
        form.unwrap_or_else(|| panic!("stories.txt: `{entry}` has no form {}", slot.form))
    }
}

/// Every name that a child can have.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let entries = &GRAMMAR.words[GRAMMAR.slots["hero"].words];
    entries.iter().filter_map(|entry| entry.split('/').next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::draws::Stream;
    use std::collections::HashSet;

    /// Every line of every group, also those that are chosen rarely.
    fn lines() -> impl Iterator<Item = &'static str> {
        let plots = GRAMMAR.plots.iter().flatten().flatten();
        plots.chain(GRAMMAR.groups.values().flatten()).copied()
    }

    #[test]
    fn every_line_can_be_filled_at_any_draw() {
        assert!(GRAMMAR.plots.len() > 10 && lines().count() > 200);
        let mut draws = Draws::new(1, Stream::Stories);
        for line in lines() {
            for _ in 0..50 {
                let filled = Story::new(&mut draws).fill(line);
                let left = filled.contains(['{', '}', '[', ']', '|', '/', '@', '#']);
                assert!(!left, "{line}: {filled}");
            }
        }
    }

    /// The grammar is closed: a line names slots and groups that exist, and no slot or group is without use.
    #[test]
    fn slots_and_groups_are_those_that_lines_name() {
        let mut named = HashSet::new();
        for line in lines() {
            for (at, _) in line.match_indices('{') {
                let slot = line[at + 1..].split('}').next().unwrap();
                named.insert(slot.rsplit(' ').next().unwrap().to_ascii_lowercase());
            }
        }
        let known = GRAMMAR.slots.keys().chain(GRAMMAR.groups.keys());
        let known: HashSet<String> = known.map(|name| (*name).to_owned()).collect();
        assert_eq!(named, known);
    }

    #[test]
    fn every_entry_has_every_form_and_no_list_has_one_twice() {
        for (name, slot) in &GRAMMAR.slots {
            let mut seen = HashSet::new();
            for entry in &GRAMMAR.words[slot.words] {
                let form = entry.split('/').nth(slot.form);
                assert!(form.is_some_and(|form| !form.is_empty()), "{name}: {entry}");
                assert!(seen.insert(entry.split('/').next()), "{name}: {entry}");
            }
            assert!(seen.len() > 5, "{name}: {} words", seen.len());
        }
    }

    #[test]
    fn no_name_is_part_of_another() {
        // Tests and readers count a name by its letters.
        let all: Vec<&str> = names().collect();
        for name in &all {
            let holding = all.iter().filter(|other| other.contains(name)).count();
            assert_eq!(holding, 1, "{name}");
        }
    }

    #[test]
    fn a_line_that_begins_with_a_slot_begins_with_a_capital() {
        for line in lines().filter(|line| line.starts_with('{')) {
            let slot = &line[1..line.find('}').unwrap()];
            // A name has its capital from its list.
            let name = GRAMMAR.groups.contains_key(slot) || slot == "friend";
            assert!(name || slot.as_bytes()[0].is_ascii_uppercase(), "{line}");
        }
    }

    #[test]
    fn a_choice_stays_and_is_not_shared() {
        for seed in 0..50 {
            let mut draws = Draws::new(seed, Stream::Stories);
            let mut story = Story::new(&mut draws);
            let line = "{colour} {colour2} {colour3}";
            let first = story.fill(line);
            assert_eq!(first, story.fill(line));
            let colours: HashSet<&str> = first.split(' ').collect();
            assert_eq!(colours.len(), 3, "{first}");
        }
    }

    #[test]
    fn slots_take_their_article_and_their_capital() {
        let mut draws = Draws::new(1, Stream::Stories);
        let mut story = Story::new(&mut draws);
        let choice = |slot: &str| GRAMMAR.slots[slot].choice;
        story.chosen[choice("animal")] = Some("owl");
        story.chosen[choice("place")] = Some("on the hill/the hill");
        let filled = story.fill("{at-place}: {place}, {Place}");
        assert_eq!(filled, "on the hill: the hill, The hill");
        let filled = story.fill("{animal} {Animal} {a animal} {A animal}");
        assert_eq!(filled, "owl Owl an owl An owl");
    }
}
