//! Words of texts and names: split, reduced to stems, and which of them mean about the same.
//!
//! English only; words of other languages are compared as they are.

use std::sync::OnceLock;

/// Words that say nothing about what is wanted, and verbs that every description begins with.
const STOP_WORDS: &[&str] = &[
    "a",
    "about",
    "again",
    "agent",
    "all",
    "also",
    "am",
    "an",
    "any",
    "are",
    "as",
    "at",
    "be",
    "by",
    "can",
    "could",
    "do",
    "does",
    "enable",
    "for",
    "from",
    "get",
    "give",
    "given",
    "handle",
    "has",
    "have",
    "her",
    "him",
    "his",
    "how",
    "i",
    "if",
    "in",
    "into",
    "is",
    "it",
    "its",
    "let",
    "make",
    "manage",
    "may",
    "me",
    "my",
    "need",
    "new",
    "now",
    "of",
    "on",
    "one",
    "our",
    "out",
    "over",
    "perform",
    "please",
    "process",
    "provide",
    "return",
    "service",
    "she",
    "should",
    "so",
    "some",
    "support",
    "take",
    "tell",
    "than",
    "the",
    "their",
    "them",
    "there",
    "these",
    "they",
    "this",
    "those",
    "up",
    "us",
    "use",
    "using",
    "via",
    "want",
    "was",
    "we",
    "what",
    "when",
    "where",
    "will",
    "with",
    "would",
    "you",
    "your",
    "allow",
    "allows",
    "returns",
    "provides",
    "handles",
    "manages",
    "performs",
    "processes",
    "takes",
    "gives",
    "gets",
    "makes",
    "supports",
    "enables",
    "uses",
    "tool",
];

/// Words that begin another clause: what follows is likely a verb.
const CLAUSE_WORDS: &[&str] = &[
    "and",
    "or",
    "then",
    "afterwards",
    "finally",
    "next",
    "but",
    "after",
];
/// Words that begin a clause of a description; in an action they only say which one is meant.
const RELATIVE_WORDS: &[&str] = &["that", "which", "who", "to"];

/// Each line means about the same.
const RELATED: &[&[&str]] = &[
    &[
        "deliver", "ship", "dispatch", "courier", "receive", "arrive",
    ],
    &["pay", "charge", "bill"],
    &["buy", "purchase", "order", "checkout"],
    &["reserve", "book", "allocate"],
    &["stock", "inventory", "warehouse"],
    &["email", "mail"],
    &["recipient", "to", "receiver", "addressee"],
    &["notify", "alert", "inform"],
    &["send", "email", "mail", "notify", "sms"],
    &[
        "find", "search", "lookup", "look", "fetch", "retrieve", "query", "list", "show",
    ],
    &["summarize", "summary", "digest"],
    &["write", "draft", "compose", "author", "generate", "create"],
    &["check", "verify", "validate", "inspect"],
    &["refund", "reimburse"],
    &["cancel", "revoke"],
    &["delete", "remove"],
    &["update", "change", "edit", "modify"],
    &["estimate", "quote", "forecast", "predict"],
    &["repeat", "echo"],
    &["amount", "total", "sum", "price", "cost"],
    &["quantity", "qty", "count"],
    &["text", "content", "body", "message", "msg"],
    &["address", "destination", "location"],
    &["customer", "client", "user", "buyer"],
    &["product", "item", "sku", "article"],
    &["phone", "telephone", "mobile"],
    &["language", "lang", "locale"],
    &["url", "link", "uri"],
    &["document", "doc", "file"],
    &["question", "query", "prompt"],
];

/// What stands for several things to do, unless a service does it as a whole: each of these is one of them.
const COMPOSED: &[(&[&str], &[&[&str]])] = &[(
    &["order", "buy", "purchase", "checkout"],
    &[
        &["reserve", "allocate", "stock", "inventory", "warehouse"],
        &["pay", "charge", "bill"],
    ],
)];

/// Words of names that say too little to tell one value from another.
const GENERIC: &[&str] = &[
    "id",
    "status",
    "message",
    "result",
    "success",
    "ok",
    "error",
    "name",
    "type",
    "text",
    "value",
    "data",
    "timestamp",
    "time",
    "date",
    "code",
    "description",
    "output",
    "response",
    "key",
    "number",
    "info",
    "content",
    "body",
];

/// The words of a text or a name, in lower case. `customerId`, `customer-id` and `customer_id` have the same.
pub(crate) fn words(text: &str) -> Vec<String> {
    let chars: Vec<_> = text.chars().collect();
    let mut words = Vec::new();
    let mut word = String::new();
    for (at, &this) in chars.iter().enumerate() {
        if !this.is_alphanumeric() {
            // The end of "don't" and "lamp's" is no word.
            if matches!(this, '\'' | '’') && !word.is_empty() {
                continue;
            }
            words.extend(finished(&mut word));
            continue;
        }
        let before = at.checked_sub(1).map(|before| chars[before]);
        let after_is_lower = chars.get(at + 1).is_some_and(|after| after.is_lowercase());
        let begins = match before {
            Some(before) => {
                this.is_uppercase()
                    && (before.is_lowercase() || (before.is_uppercase() && after_is_lower))
            }
            None => true,
        };
        if begins {
            words.extend(finished(&mut word));
        }
        word.extend(this.to_lowercase());
    }
    words.extend(finished(&mut word));
    words
}

fn finished(word: &mut String) -> Option<String> {
    let word = std::mem::take(word);
    (!word.is_empty()).then_some(word)
}

fn says_nothing(word: &str) -> bool {
    STOP_WORDS.contains(&word)
        || RELATIVE_WORDS.contains(&word)
        || word.chars().all(|char| char.is_numeric())
}

/// The stems of a name, all of them unless nothing remains.
pub(super) fn stems_of_name(name: &str) -> Vec<String> {
    let stems: Vec<_> = words(name)
        .into_iter()
        .filter(|word| !says_nothing(word))
        .map(|word| stem(&word))
        .collect();
    if stems.is_empty() { words(name) } else { stems }
}

/// The stems of each clause of an action, the verb first if all goes well.
pub(super) fn clauses_of_action(text: &str) -> Vec<Vec<String>> {
    clauses(text, |word| CLAUSE_WORDS.contains(&word))
}

/// The stems of each clause of a description.
pub(super) fn clauses_of_description(text: &str) -> Vec<Vec<String>> {
    clauses(text, |word| {
        CLAUSE_WORDS.contains(&word) || RELATIVE_WORDS.contains(&word)
    })
}

fn clauses(text: &str, begins: impl Fn(&str) -> bool) -> Vec<Vec<String>> {
    let mut clauses = vec![Vec::new()];
    for sentence in text.split(['.', ',', ';', ':', '!', '?', '\n', '(', ')']) {
        clauses.push(Vec::new());
        for word in words(sentence) {
            if begins(&word) {
                clauses.push(Vec::new());
            } else if !says_nothing(&word)
                && let Some(clause) = clauses.last_mut()
            {
                clause.push(stem(&word));
            }
        }
    }
    clauses.retain(|clause| !clause.is_empty());
    clauses
}

/// What is common to the forms of a word: `charges`, `charged` and `charging` have one, and so have `reserve` and `reservation`.
pub(crate) fn stem(word: &str) -> String {
    if !word.is_ascii() || word.len() < 3 {
        return word.to_owned();
    }
    let mut stem = singular(word);
    let mut verbal = false;
    for ending in ["ing", "ed"] {
        if let Some(rest) = stem.strip_suffix(ending)
            && rest.len() >= 3
            && rest.contains(['a', 'e', 'i', 'o', 'u', 'y'])
        {
            stem = undoubled(rest);
            verbal = true;
            break;
        }
    }
    for (ending, least) in [
        ("ication", 3),
        ("ation", 4),
        ("ment", 3),
        ("ion", 4),
        ("y", 3),
        ("ate", 4),
        ("e", 3),
    ] {
        if let Some(rest) = stem.strip_suffix(ending)
            && rest.len() >= least
        {
            stem = rest.to_owned();
            break;
        }
    }
    for (ending, least) in [("er", 4), ("or", 4)] {
        if let Some(rest) = stem.strip_suffix(ending)
            && rest.len() >= least
        {
            stem = rest.to_owned();
            verbal |= ending == "or";
        }
    }
    for ending in ["iz", "is"] {
        if let Some(rest) = stem.strip_suffix(ending)
            && rest.len() >= 5
        {
            stem = rest.to_owned();
        }
    }
    if verbal
        && let Some(rest) = stem.strip_suffix("at")
        && rest.len() >= 4
    {
        stem = rest.to_owned();
    }
    stem
}

fn singular(word: &str) -> String {
    if let Some(rest) = word.strip_suffix("ies").filter(|rest| rest.len() >= 2) {
        return format!("{rest}y");
    }
    if word.ends_with("sses") {
        return word[..word.len() - 2].to_owned();
    }
    let plural = word.ends_with('s')
        && !word.ends_with("ss")
        && !word.ends_with("us")
        && !word.ends_with("is");
    if plural {
        word[..word.len() - 1].to_owned()
    } else {
        word.to_owned()
    }
}

fn undoubled(word: &str) -> String {
    let bytes = word.as_bytes();
    match bytes {
        [.., before, last]
            if before == last && !matches!(last, b'l' | b's' | b'z' | b'e' | b'o') =>
        {
            word[..word.len() - 1].to_owned()
        }
        [.., b'i'] => format!("{}y", &word[..word.len() - 1]),
        _ => word.to_owned(),
    }
}

fn stemmed(table: &[&[&str]]) -> Vec<Vec<String>> {
    table
        .iter()
        .map(|line| line.iter().map(|word| stem(word)).collect())
        .collect()
}

/// Whether two stems mean about the same.
pub(crate) fn related(a: &str, b: &str) -> bool {
    static STEMS: OnceLock<Vec<Vec<String>>> = OnceLock::new();
    let lines = STEMS.get_or_init(|| stemmed(RELATED));
    a != b
        && lines
            .iter()
            .any(|line| line.iter().any(|stem| stem == a) && line.iter().any(|stem| stem == b))
}

/// What a stem is composed of: any stem of each part will do.
pub(super) fn parts_of(verb: &str) -> Vec<Vec<String>> {
    let composed = COMPOSED
        .iter()
        .find(|(verbs, _)| verbs.iter().any(|word| stem(word) == verb));
    composed
        .map(|(_, parts)| stemmed(parts))
        .unwrap_or_default()
}

/// Whether a stem says too little to tell one value from another.
pub(super) fn is_generic(name: &str) -> bool {
    static STEMS: OnceLock<Vec<String>> = OnceLock::new();
    STEMS
        .get_or_init(|| GENERIC.iter().map(|word| stem(word)).collect())
        .iter()
        .any(|generic| generic == name)
}

/// Whether two names have the same stems, in any order.
pub(super) fn same_stems(a: &[String], b: &[String]) -> bool {
    a.len() == b.len()
        && a.iter().all(|stem| b.contains(stem))
        && b.iter().all(|stem| a.contains(stem))
}

/// How alike two names are, from 0 to 1. Names that have nothing but generic words in common are not alike at all.
pub(super) fn likeness(a: &[String], b: &[String]) -> f64 {
    let mut left: Vec<_> = b.iter().collect();
    let (mut same, mut alike, mut telling) = (0.0, 0.0, false);
    let mut unmatched = Vec::new();
    for stem in a {
        match left.iter().position(|other| *other == stem) {
            Some(at) => {
                left.remove(at);
                same += 1.0;
                telling |= !is_generic(stem);
            }
            None => unmatched.push(stem),
        }
    }
    for stem in unmatched {
        if let Some(at) = left.iter().position(|other| related(stem, other)) {
            left.remove(at);
            alike += 1.0;
            telling = true;
        }
    }
    let all = a.len() as f64 + b.len() as f64 - same - alike;
    if telling && all > 0.0 {
        (same + alike / 2.0) / all
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_are_split() {
        assert_eq!(
            words("customerId customer-id customer_id"),
            ["customer", "id", "customer", "id", "customer", "id"]
        );
        assert_eq!(
            words("HTTPServer v2, the lamp's Größe"),
            ["http", "server", "v2", "the", "lamps", "größe"]
        );
        assert_eq!(stems_of_name("orderIds"), ["order", "id"]);
        assert_eq!(stems_of_name("service"), ["service"]);
    }

    #[test]
    fn forms_of_a_word_have_one_stem() {
        let families = [
            "charge charges charged charging",
            "deliver delivers delivered delivering delivery deliveries",
            "reserve reserves reserved reserving reservation reservations",
            "translate translates translating translation translator",
            "notify notifies notified notification",
            "pay pays paying payment payments",
            "ship ships shipped shipping shipment",
            "create creates created creating creation",
            "summarize summarizes summarizer summary",
            "echo echoes",
            "message messages",
            "quantity quantities",
            "calculate calculation calculating",
            "address addresses",
            "id ids",
        ];
        for family in families {
            let mut stems: Vec<_> = family.split(' ').map(stem).collect();
            stems.dedup();
            assert_eq!(stems.len(), 1, "{family}: {stems:?}");
        }
        let different = [
            "order",
            "echo",
            "pay",
            "ship",
            "status",
            "stock",
            "customer",
            "cost",
            "custom-made",
        ];
        for (at, word) in different.iter().enumerate() {
            assert!(
                different[at + 1..]
                    .iter()
                    .all(|other| stem(other) != stem(word)),
                "{word}"
            );
        }
    }

    #[test]
    fn clauses_begin_with_their_verb() {
        let verbs = |clauses: Vec<Vec<String>>| {
            clauses
                .into_iter()
                .map(|clause| clause[0].clone())
                .collect::<Vec<_>>()
        };
        let of_action = |text: &str| verbs(clauses_of_action(text));
        assert_eq!(
            of_action("Order 2 of the blue lamp for customer c1 and deliver it."),
            ["order", "deliv"]
        );
        assert_eq!(of_action("Find the customer who ordered it"), ["find"]);
        assert_eq!(of_action("Please, could you"), [""; 0]);
        let description = "Inventory service that checks stock, then reserves it";
        assert_eq!(
            verbs(clauses_of_description(description)),
            ["invent", "check", "reserv"]
        );
    }

    #[test]
    fn likeness_needs_a_telling_word() {
        let check = |a: &str, b: &str| likeness(&stems_of_name(a), &stems_of_name(b));
        assert_eq!(check("amount", "total"), 0.5);
        assert_eq!(check("userId", "customerId"), 0.75);
        assert_eq!(check("orderId", "customerId"), 0.0);
        assert!(check("customerId", "customerName") < 0.5);
        assert!(check("amount", "unitPrice") < 0.5);
        assert_eq!(check("deliveryAddress", "shippingAddress"), 0.75);
        assert_eq!(check("id", "id"), 0.0);
    }
}
