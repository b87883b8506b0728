//! Vectors of words: no model, no network, the same on every machine. They know stems ("refunds", "refunded") and nothing of meaning:
//! "give the money back" is far from "refund".
//!
//! Invariant: a text has one vector, for ever; a change here is another [`SPACE`].

use sha2::{Digest, Sha256};

use super::Vector;
use crate::planner::builtin::words::{related, stem, words};

/// The space of these vectors. Persisted with cached plans.
pub const SPACE: &str = "lexical-1";
/// Components of a vector.
const SIZE: usize = 512;
/// What two neighbours weigh, where a word weighs one.
const PAIR_WEIGHT: f32 = 0.25;

/// Words that carry a sentence and not its meaning. Negations, quantities and order are not among them.
const STOP_WORDS: [&str; 47] = [
    "a", "an", "and", "any", "are", "as", "at", "be", "been", "by", "can", "could", "do", "does",
    "for", "from", "have", "i", "in", "into", "is", "it", "its", "like", "may", "me", "my", "of",
    "on", "our", "please", "should", "so", "that", "the", "their", "them", "these", "this", "to",
    "want", "was", "we", "will", "would", "you", "your",
];

/// The stems of a text that say what it is about, in order. Words with digits are names of things: they are left out.
pub fn content(text: &str) -> Vec<String> {
    words(text)
        .into_iter()
        .filter(|word| !word.chars().any(|char| char.is_ascii_digit()))
        .filter(|word| !STOP_WORDS.contains(&word.as_str()))
        .map(|word| stem(&word))
        .collect()
}

/// The vector of a text.
pub fn vector(text: &str) -> Vector {
    let content = content(text);
    let mut values = vec![0.0_f32; SIZE];
    for word in &content {
        add(&mut values, word, 1.0);
    }
    for pair in content.windows(2) {
        add(&mut values, &pair.join(" "), PAIR_WEIGHT);
    }
    Vector {
        space: SPACE.to_owned(),
        values: super::model::unit(values).unwrap_or_else(|| vec![0.0; SIZE]),
    }
}

fn add(values: &mut [f32], feature: &str, weight: f32) {
    let digest = Sha256::digest(feature.as_bytes());
    let place = usize::from(u16::from_be_bytes([digest[0], digest[1]])) % values.len();
    values[place] += if digest[2] & 1 == 0 { weight } else { -weight };
}

/// Which part of what is asked for a text speaks of, from 0 to 1; related words count as half.
pub fn coverage(asked: &str, text: &str) -> f64 {
    let (asked, text) = (content(asked), content(text));
    if asked.is_empty() {
        return 0.0;
    }
    let found = asked.iter().map(|word| {
        if text.contains(word) {
            1.0
        } else if text.iter().any(|other| related(word, other)) {
            0.5
        } else {
            0.0
        }
    });
    found.sum::<f64>() / asked.len() as f64
}

/// What two texts must have in common to the letter before one may stand for the other, however alike they are: numbers and other words
/// with digits, what is quoted, names, and negations, in order.
pub fn specifics(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut begins_sentence = true;
    let mut quote: Option<(char, String)> = None;
    for token in text.split_whitespace() {
        if let Some((end, quoted)) = &mut quote {
            quoted.push(' ');
            quoted.push_str(token);
            if token.contains(*end) {
                found.push(std::mem::take(quoted));
                quote = None;
            }
            continue;
        }
        if let Some(open) = token
            .chars()
            .find(|char| matches!(char, '"' | '“' | '«' | '`'))
        {
            let end = match open {
                '“' => '”',
                '«' => '»',
                same => same,
            };
            let after = token.split_once(open).map_or("", |(_, after)| after);
            if after.contains(end) {
                found.push(token.to_owned());
            } else {
                quote = Some((end, token.to_owned()));
            }
            continue;
        }
        let word = token.trim_matches(|char: char| !char.is_alphanumeric());
        let is_name = !begins_sentence && word.chars().next().is_some_and(char::is_uppercase);
        let is_negation = matches!(
            word.to_lowercase().as_str(),
            "not"
                | "no"
                | "never"
                | "without"
                | "except"
                | "unless"
                | "only"
                | "nor"
                | "neither"
                | "all"
                | "every"
        ) || word.to_lowercase().ends_with("n't")
            || word.to_lowercase().ends_with("n’t");
        if is_name
            || is_negation
            || token.chars().any(|char| char.is_ascii_digit())
            || word.is_empty()
        {
            found.push(token.to_owned());
        }
        begins_sentence = token.ends_with(['.', '!', '?', ':']);
    }
    found.extend(quote.map(|(_, quoted)| quoted));
    found
}
