//! One story: who and what has been cast so far, and how a template becomes a sentence.

use super::super::draws::Draws;
use super::words::{ROLES, Role, SLOTS, entries, form, table};
use super::{plots, shared};

/// Tells one story in one line.
pub(super) fn tell(draws: &mut Draws) -> String {
    let plot = plots::PLOTS[draws.index(plots::PLOTS.len())];
    let mut story = Story {
        draws,
        cast: [None; ROLES],
    };
    let mut line = String::new();
    for beat in plot.trim().split("\n\n") {
        let told = story.beat(beat);
        if !line.is_empty() && !told.is_empty() {
            line.push(' ');
        }
        line += &told;
    }
    line
}

struct Story<'a> {
    draws: &'a mut Draws,
    /// By role: the entry that plays it, once it has been needed.
    cast: [Option<&'static str>; ROLES],
}

impl Story<'_> {
    /// One of a beat's lines, filled. The line `-` says nothing.
    fn beat(&mut self, beat: &str) -> String {
        let count = beat.lines().count();
        let line = beat
            .lines()
            .nth(self.draws.index(count))
            .unwrap_or_default();
        if line == "-" {
            String::new()
        } else {
            self.fill(line)
        }
    }

    /// A template with its slots and alternatives replaced:
    ///
    /// ```text
    /// {slot}  {Slot}       what is cast for the slot, with its case or with a capital
    /// {a slot}  {A slot}   the same after the article that suits it
    /// {opening}            a beat that plots share
    /// [one|two|three]      any of these, which may hold slots
    /// ```
    fn fill(&mut self, template: &str) -> String {
        let mut out = String::new();
        let mut rest = template;
        while let Some(start) = rest.find(['{', '[']) {
            out += &rest[..start];
            let close = if rest[start..].starts_with('{') {
                '}'
            } else {
                ']'
            };
            let end = rest
                .find(close)
                .unwrap_or_else(|| panic!("corpus: `{template}` lacks {close}"));
            let inside = &rest[start + 1..end];
            out += &if close == '}' {
                self.slot(inside)
            } else {
                self.alternative(inside)
            };
            rest = &rest[end + 1..];
        }
        out + rest
    }

    fn alternative(&mut self, inside: &str) -> String {
        let chosen = self.draws.index(inside.split('|').count());
        let chosen = inside.split('|').nth(chosen).unwrap_or_default();
        self.fill(chosen)
    }

    fn slot(&mut self, name: &str) -> String {
        if let Some((article, name)) = name.split_once(' ') {
            let word = self.slot(name);
            // The tables hold no word whose sound and first letter disagree, such as `hour`.
            let n = if word.starts_with(['a', 'e', 'i', 'o', 'u']) {
                "n"
            } else {
                ""
            };
            return format!("{article}{n} {word}");
        }
        let lower = name.to_ascii_lowercase();
        let mut word = match SLOTS.iter().find(|(slot, ..)| *slot == lower) {
            Some(&(_, role, number)) => form(self.entry(role), number).to_owned(),
            None => match shared::SHARED.iter().find(|(beat, _)| *beat == lower) {
                Some((_, beat)) => self.beat(beat.trim()),
                None => panic!("corpus: no slot is called `{name}`"),
            },
        };
        if name.starts_with(|first: char| first.is_ascii_uppercase()) {
            word[..1].make_ascii_uppercase();
        }
        word
    }

    /// The entry that plays a role; cast now if it has not been, and never one that another role holds.
    fn entry(&mut self, role: Role) -> &'static str {
        if let Some(entry) = self.cast[role as usize] {
            return entry;
        }
        let free: Vec<_> = entries(table(role))
            .filter(|entry| !self.cast.contains(&Some(entry)))
            .collect();
        let entry = free[self.draws.index(free.len())];
        self.cast[role as usize] = Some(entry);
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::draws::Stream;
    use super::*;

    /// Every line of every beat, also those that are drawn rarely.
    fn lines() -> impl Iterator<Item = &'static str> {
        let shared = shared::SHARED.iter().map(|(_, beat)| *beat);
        plots::PLOTS
            .iter()
            .copied()
            .chain(shared)
            .flat_map(str::lines)
    }

    #[test]
    fn every_line_can_be_filled_at_any_draw() {
        let mut draws = Draws::new(1, Stream::Stories);
        for line in lines() {
            for _ in 0..50 {
                let mut story = Story {
                    draws: &mut draws,
                    cast: [None; ROLES],
                };
                let filled = story.fill(line);
                assert!(
                    !filled.contains(['{', '}', '[', ']', '|', '/']),
                    "{line}: {filled}"
                );
            }
        }
    }

    #[test]
    fn every_slot_is_used() {
        let all: String = lines().collect::<String>().to_ascii_lowercase();
        for (slot, ..) in SLOTS {
            let used = all.contains(&format!("{{{slot}}}")) || all.contains(&format!(" {slot}}}"));
            assert!(used, "{slot}");
        }
    }

    #[test]
    fn a_line_that_begins_with_a_slot_begins_with_a_capital() {
        for line in lines().filter(|line| line.starts_with('{')) {
            let slot = &line[1..line.find('}').unwrap()];
            let shared = shared::SHARED.iter().any(|(name, _)| *name == slot);
            // A name has its capital from its table.
            assert!(
                shared || slot == "friend" || slot.as_bytes()[0].is_ascii_uppercase(),
                "{line}"
            );
        }
    }

    #[test]
    fn a_cast_stays_and_is_not_shared() {
        for seed in 0..50 {
            let mut draws = Draws::new(seed, Stream::Stories);
            let mut story = Story {
                draws: &mut draws,
                cast: [None; ROLES],
            };
            let first = story.fill("{colour} {colour2} {colour3}");
            assert_eq!(first, story.fill("{colour} {colour2} {colour3}"));
            let colours: Vec<&str> = first.split(' ').collect();
            assert!(
                colours[0] != colours[1] && colours[1] != colours[2] && colours[0] != colours[2]
            );
        }
    }

    #[test]
    fn slots_take_their_article_and_their_capital() {
        let mut draws = Draws::new(1, Stream::Stories);
        let mut story = Story {
            draws: &mut draws,
            cast: [None; ROLES],
        };
        story.cast[Role::Animal as usize] = Some("owl");
        story.cast[Role::GradSlot as usize] = Some("on the hill/the hill");
        assert_eq!(
            story.fill("{at-place}: {place}, {GradSlot}"),
            "on the hill: the hill, The hill"
        );
        assert_eq!(
            story.fill("{animal} {Animal} {a animal} {A animal}"),
            "owl Owl an owl An owl"
        );
    }
}
