//! Checkpoints of the transparency log: signed notes (c2sp.org/tlog-checkpoint, /signed-note), their keys, and what
//! witnesses add to them (c2sp.org/tlog-cosignature).
//!
//! Pure: no database and no file, so that whoever checks a checkpoint elsewhere checks it with this. A note says nothing
//! until a key that the reader trusts has signed it: [`Trust::open`] is the only way to what is in it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use signed_note::{
    Note, NoteError, Signature, Signer, Verifier, VerifierList, is_key_name_valid, key_id,
    new_ed25519_verifier_key,
};
use tlog_tiles::{Checkpoint, Hash};

/// A note that is longer is not read: a hundred signatures fit many times over.
pub const MAX_NOTE_BYTES: usize = 64 << 10;

/// The kinds of signatures, as their keys' ids name them.
const ED25519: u8 = 1;
const COSIGNATURE: u8 = 4;

/// A checkpoint with its signatures.
#[derive(Clone, Debug, PartialEq)]
pub struct Signed {
    /// How many leaves its tree has.
    pub size: u64,
    /// The tree's root.
    pub root: Hash,
    /// The whole note, as it is served.
    pub note: String,
}

/// What trusted keys have signed.
#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    /// Which log.
    pub origin: String,
    /// How many leaves its tree has.
    pub size: u64,
    /// The tree's root.
    pub root: Hash,
    /// The trusted witnesses that have cosigned it, each with the latest of its times, Unix seconds.
    pub witnesses: Vec<(String, u64)>,
}

/// A verifier key that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{key} is no verifier key: {what}")]
pub struct BadKey {
    key: String,
    what: &'static str,
}

/// Someone's public key, as people pin it: `name+id+key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    text: String,
    name: String,
    id: u32,
    kind: u8,
    key: VerifyingKey,
}

impl VerifierKey {
    /// Reads a log's or a witness's key.
    pub fn parse(text: &str) -> Result<Self, BadKey> {
        let text = text.trim();
        let bad = |what| BadKey { key: text.to_owned(), what };
        let shape =
            || bad("it must be a name, 8 hexadecimal digits and a key in base64, with + between them");
        let (name, rest) = text.split_once('+').ok_or_else(shape)?;
        let (id_text, key) = rest.split_once('+').ok_or_else(shape)?;
        let id = u32::from_str_radix(id_text, 16).ok().filter(|_| id_text.len() == 8).ok_or_else(shape)?;
        let bytes = STANDARD.decode(key).map_err(|_| shape())?;
        if !is_key_name_valid(name) {
            return Err(bad("its name is empty or has a space"));
        }
        let Some((kind, key)) = bytes.split_first().filter(|(kind, _)| [ED25519, COSIGNATURE].contains(kind))
        else {
            return Err(bad("only Ed25519 keys of logs (1) and witnesses (4) are known"));
        };
        let key = <[u8; 32]>::try_from(key).ok().and_then(|key| VerifyingKey::from_bytes(&key).ok());
        let key = key.ok_or_else(|| bad("there is no Ed25519 key in it"))?;
        if key_id(name, &bytes) != id {
            return Err(bad("its id is another key's: was a character lost?"));
        }
        Ok(Self { text: text.to_owned(), name: name.to_owned(), id, kind: *kind, key })
    }

    /// The key as people pin it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whose it is: a log's key has the log's origin as its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is a witness's and no log's.
    #[must_use]
    pub fn is_witness(&self) -> bool {
        self.kind == COSIGNATURE
    }

    fn has_signed(&self, signature: &Signature) -> bool {
        signature.name() == self.name && signature.id() == self.id
    }
}

impl Verifier for VerifierKey {
    fn name(&self) -> &str {
        &self.name
    }

    fn key_id(&self) -> u32 {
        self.id
    }

    fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        let verifies = |message: &[u8], signature: &[u8]| {
            let signature = ed25519_dalek::Signature::from_slice(signature);
            signature.is_ok_and(|signature| self.key.verify_strict(message, &signature).is_ok())
        };
        if !self.is_witness() {
            return verifies(text, signature);
        }
        timestamp(signature)
            .is_some_and(|(time_s, signature)| verifies(&cosigned_message(text, time_s), signature))
    }
}

/// When a cosignature was made, and the signature in it.
fn timestamp(cosignature: &[u8]) -> Option<(u64, &[u8])> {
    let (time, signature) = cosignature.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*time), signature)).filter(|(time_s, _)| i64::try_from(*time_s).is_ok())
}

fn cosigned_message(text: &[u8], time_s: u64) -> Vec<u8> {
    [format!("cosignature/v1\ntime {time_s}\n").as_bytes(), text].concat()
}

/// A log's key of one generation, with which it signs.
struct LogSigner<'a> {
    origin: &'a str,
    key: &'a SigningKey,
}

impl Signer for LogSigner<'_> {
    fn name(&self) -> &str {
        self.origin
    }

    fn key_id(&self) -> u32 {
        key_id(self.origin, &[&[ED25519], self.key.verifying_key().as_bytes().as_slice()].concat())
    }

    fn sign(&self, text: &[u8]) -> Result<Vec<u8>, ed25519_dalek::SignatureError> {
        Ok(self.key.try_sign(text)?.to_vec())
    }
}

/// The public half of a log's key, as auditors pin it.
#[must_use]
pub fn verifier_key(origin: &str, key: &SigningKey) -> String {
    new_ed25519_verifier_key(origin, &key.verifying_key())
}

/// Signs a tree. That it may be signed is for the caller to have proven.
///
/// # Errors
/// Where the origin cannot be a name; ours always can.
pub fn sign(origin: &str, size: u64, root: Hash, keys: &[SigningKey]) -> Result<Signed, Untrusted> {
    let checkpoint = Checkpoint::new(origin, size, root, "").map_err(|_| Untrusted::Malformed)?;
    let mut note = Note::new(&checkpoint.to_bytes(), &[])?;
    for key in keys {
        note.add_sigs(&[&LogSigner { origin, key }])?;
    }
    Ok(Signed { size, root, note: text_of(&note) })
}

fn text_of(note: &Note) -> String {
    String::from_utf8_lossy(&note.to_bytes()).into_owned()
}

/// A witness's key, with which it cosigns.
pub struct Cosigner {
    name: String,
    key: SigningKey,
    now_s: u64,
}

impl Cosigner {
    /// A witness at an instant; its name must be one that a key can have.
    #[must_use]
    pub fn new(name: &str, key: SigningKey, now_s: u64) -> Option<Self> {
        is_key_name_valid(name).then(|| Self { name: name.to_owned(), key, now_s })
    }

    fn public(&self) -> Vec<u8> {
        [&[COSIGNATURE], self.key.verifying_key().as_bytes().as_slice()].concat()
    }

    /// The public half, as people pin it.
    #[must_use]
    pub fn verifier_key(&self) -> String {
        let (id, key) = (self.key_id(), STANDARD.encode(self.public()));
        format!("{}+{id:08x}+{key}", self.name)
    }

    /// The signature line for a note.
    ///
    /// # Errors
    /// Where it is no note.
    pub fn cosign(&self, note: &str) -> Result<String, Untrusted> {
        let note = Note::from_bytes(note.as_bytes())?;
        let signature = self.sign(note.text()).map_err(NoteError::from)?;
        let line = Signature::new(self.name.clone(), self.key_id(), signature)?.to_bytes();
        Ok(String::from_utf8_lossy(&line).into_owned())
    }
}

impl Signer for Cosigner {
    fn name(&self) -> &str {
        &self.name
    }

    fn key_id(&self) -> u32 {
        key_id(&self.name, &self.public())
    }

    fn sign(&self, text: &[u8]) -> Result<Vec<u8>, ed25519_dalek::SignatureError> {
        let signature = self.key.try_sign(&cosigned_message(text, self.now_s))?;
        Ok([self.now_s.to_be_bytes().as_slice(), &signature.to_bytes()].concat())
    }
}

/// Why a checkpoint proves nothing to its reader.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// It has not the shape of a checkpoint.
    #[error("it is no signed checkpoint (c2sp.org/tlog-checkpoint)")]
    Malformed,
    /// It is signed, but as another log's.
    #[error("it is a checkpoint of {found}, not of {expected}")]
    OtherLog {
        /// What it says.
        found: String,
        /// Whose key is trusted.
        expected: String,
    },
    /// No key of the log has signed it.
    #[error("it is signed by no key of {0} that is trusted here")]
    NotSigned(String),
    /// It names a trusted key, but the signature is not of that key over this text.
    #[error("the signature of {0} is wrong: the checkpoint was changed")]
    BadSignature(String),
    /// Fewer witnesses than must.
    #[error("{found} of the trusted witnesses have cosigned it, {needed} must")]
    TooFewWitnesses {
        /// How many have.
        found: usize,
        /// How many must.
        needed: usize,
    },
}

impl From<NoteError> for Untrusted {
    fn from(error: NoteError) -> Self {
        match error {
            NoteError::InvalidSignature { name, .. } => Self::BadSignature(name),
            _ => Self::Malformed,
        }
    }
}

/// Whose signatures a checkpoint must carry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    log: Vec<VerifierKey>,
    witnesses: Vec<VerifierKey>,
    needed: usize,
}

impl Trust {
    /// One of these keys of one log (several while a key is rotated), and so many of these witnesses.
    pub fn new<T: AsRef<str>>(log: &[T], witnesses: &[T], needed: usize) -> Result<Self, BadKey> {
        let bad = |key: &VerifierKey, what| Err(BadKey { key: key.text.clone(), what });
        let parse = |keys: &[T]| {
            let mut parsed: Vec<VerifierKey> = Vec::new();
            for key in keys {
                let key = VerifierKey::parse(key.as_ref())?;
                if !parsed.iter().any(|other| (&other.name, other.id) == (&key.name, key.id)) {
                    parsed.push(key);
                }
            }
            Ok(parsed)
        };
        let (log, witnesses): (Vec<VerifierKey>, _) = (parse(log)?, parse(witnesses)?);
        if let Some(key) = log.iter().find(|key| key.is_witness()) {
            return bad(key, "it is a witness's, and a log's is wanted");
        }
        if let [first, rest @ ..] = log.as_slice()
            && let Some(key) = rest.iter().find(|key| key.name != first.name)
        {
            return bad(key, "it is of another log than the first");
        }
        if let Some(key) = witnesses.iter().find(|key| !key.is_witness()) {
            return bad(key, "it is a log's, and a witness's is wanted");
        }
        Ok(Self { log, witnesses, needed })
    }

    /// The same, where every one of the witnesses must have cosigned.
    #[must_use]
    pub fn needing_all(self) -> Self {
        // Counted here, where one that was named twice is one.
        Self { needed: self.witnesses.len(), ..self }
    }

    /// The log whose keys are trusted; empty where none is.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.log.first().map_or("", VerifierKey::name)
    }

    /// What the note says, if those who must have signed it.
    pub fn open(&self, note: &str) -> Result<Opened, Untrusted> {
        let (note, checkpoint) = parse(note)?;
        if checkpoint.origin() != self.origin() {
            let (found, expected) = (checkpoint.origin().to_owned(), self.origin().to_owned());
            return Err(Untrusted::OtherLog { found, expected });
        }
        let keys = self.log.iter().chain(&self.witnesses);
        let keys = keys.map(|key| Box::new(key.clone()) as Box<dyn Verifier>).collect();
        let not_signed = || Untrusted::NotSigned(self.origin().to_owned());
        let (verified, _) = note.verify(&VerifierList::new(keys)).map_err(|error| match error {
            NoteError::UnverifiedNote => not_signed(),
            error => error.into(),
        })?;
        if !verified.iter().any(|signature| self.log.iter().any(|key| key.has_signed(signature))) {
            return Err(not_signed());
        }
        let cosigned = |signature: &Signature| {
            let key = self.witnesses.iter().find(|key| key.has_signed(signature))?;
            Some((key.name.clone(), timestamp(signature.signature())?.0))
        };
        let witnesses: Vec<_> = verified.iter().filter_map(cosigned).collect();
        if witnesses.len() < self.needed {
            return Err(Untrusted::TooFewWitnesses { found: witnesses.len(), needed: self.needed });
        }
        Ok(Opened::of(&checkpoint, witnesses))
    }
}

impl Opened {
    fn of(checkpoint: &Checkpoint, witnesses: Vec<(String, u64)>) -> Self {
        let (size, root) = (checkpoint.size(), *checkpoint.hash());
        Self { origin: checkpoint.origin().to_owned(), size, root, witnesses }
    }

    /// What a note says, whoever wrote it: for those who have nobody's key and say so.
    pub fn unverified(note: &str) -> Result<Self, Untrusted> {
        Ok(Self::of(&parse(note)?.1, Vec::new()))
    }
}

fn parse(note: &str) -> Result<(Note, Checkpoint), Untrusted> {
    if note.len() > MAX_NOTE_BYTES {
        return Err(Untrusted::Malformed);
    }
    let note = Note::from_bytes(note.as_bytes())?;
    let checkpoint = Checkpoint::from_bytes(note.text()).map_err(|_| Untrusted::Malformed)?;
    Ok((note, checkpoint))
}

/// How many signatures a note has that are not the log's own. It says how far to wait; only [`Trust::open`] says whose they
/// are.
#[must_use]
pub fn cosignatures(note: &str) -> usize {
    let origin = note.lines().next().unwrap_or_default();
    let names = note.lines().filter_map(|line| line.strip_prefix("— ")?.split_once(' '));
    names.filter(|(name, _)| *name != origin).count()
}

/// A note with what witnesses answered: of each of these keys, the one line that is its signature over this note. Anything
/// else in an answer is left out.
#[must_use]
pub fn with_cosignatures(note: &str, answer: &str, witness: &VerifierKey) -> Option<String> {
    let parsed = Note::from_bytes(note.as_bytes()).ok()?;
    let line = answer.lines().find(|line| {
        let signature = Signature::from_bytes(line.as_bytes());
        signature.is_ok_and(|signature| {
            witness.has_signed(&signature) && witness.verify(parsed.text(), signature.signature())
        })
    })?;
    let (text, signatures) = note.rsplit_once("\n\n")?;
    let of_witness = |line: &&str| {
        Signature::from_bytes(line.as_bytes()).is_ok_and(|signature| witness.has_signed(&signature))
    };
    let kept = signatures.lines().filter(|line| !of_witness(line)).chain([line]);
    Some(format!("{text}\n\n{}\n", kept.collect::<Vec<_>>().join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tlog_tiles::record_hash;

    const ORIGIN: &str = "coupon-ledger/0123456789abcdef";

    fn key(number: u8) -> SigningKey {
        SigningKey::from_bytes(&[number; 32])
    }

    fn witness(number: u8) -> Cosigner {
        Cosigner::new(&format!("witness.example/{number}"), key(number), 1_679_315_147).unwrap()
    }

    fn signed() -> Signed {
        sign(ORIGIN, 7, record_hash(b"x"), &[key(1)]).unwrap()
    }

    /// The example of c2sp.org/tlog-cosignature's shape, and of c2sp.org/signed-note's own test key.
    #[test]
    fn keys_of_logs_and_witnesses_are_told_apart_and_spoilt_ones_refused() {
        let known = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        assert_eq!(VerifierKey::parse(known).unwrap().name(), "PeterNeumann");
        let witness = witness(9).verifier_key();
        assert!(VerifierKey::parse(&witness).unwrap().is_witness());
        for bad in
            ["", "a+b", "a+00000000+", &known.replace("c74f", "c74e"), &known.replace("+AR", "+BR"), "é+é+é"]
        {
            assert!(VerifierKey::parse(bad).is_err(), "{bad}");
        }
        assert!(Trust::new(&[witness.as_str()], &[], 0).is_err());
        assert!(Trust::new(&[known], &[known], 0).is_err());
    }

    #[test]
    fn a_checkpoint_opens_under_its_logs_key_only_and_not_with_a_changed_byte() {
        let signed = signed();
        let trust = Trust::new(&[verifier_key(ORIGIN, &key(1))], &[], 0).unwrap();
        let opened = trust.open(&signed.note).unwrap();
        assert_eq!((opened.size, opened.root), (7, record_hash(b"x")));
        let other = Trust::new(&[verifier_key(ORIGIN, &key(2))], &[], 0).unwrap();
        assert!(matches!(other.open(&signed.note), Err(Untrusted::NotSigned(_))));
        let other = Trust::new(&[verifier_key("coupon-ledger/other", &key(1))], &[], 0).unwrap();
        assert!(matches!(other.open(&signed.note), Err(Untrusted::OtherLog { .. })));
        for at in 0..signed.note.len() {
            let mut bytes = signed.note.clone().into_bytes();
            bytes[at] ^= 1;
            if let Ok(note) = String::from_utf8(bytes) {
                assert!(trust.open(&note).is_err(), "{note}");
            }
        }
    }

    #[test]
    fn so_many_witnesses_must_have_cosigned_as_are_asked_for() {
        let mut signed = signed();
        let keys: Vec<String> = [8, 9].map(|number| witness(number).verifier_key()).into();
        let trust = |needed| Trust::new(&[verifier_key(ORIGIN, &key(1))], &keys, needed).unwrap();
        assert!(matches!(
            trust(1).open(&signed.note),
            Err(Untrusted::TooFewWitnesses { found: 0, needed: 1 })
        ));
        for (number, found) in [(8, 1), (8, 1), (9, 2)] {
            let line = witness(number).cosign(&signed.note).unwrap();
            let own = VerifierKey::parse(&witness(number).verifier_key()).unwrap();
            let answer = format!("garbage\n{line}{}", witness(7).cosign(&signed.note).unwrap());
            signed.note = with_cosignatures(&signed.note, &answer, &own).unwrap();
            assert_eq!(trust(0).open(&signed.note).unwrap().witnesses.len(), found);
        }
        assert_eq!(trust(2).open(&signed.note).unwrap().witnesses[0].1, 1_679_315_147);
        // A witness of another tree adds nothing to this one.
        let other = sign(ORIGIN, 8, record_hash(b"y"), &[key(1)]).unwrap();
        let own = VerifierKey::parse(&keys[0]).unwrap();
        assert_eq!(with_cosignatures(&signed.note, &witness(8).cosign(&other.note).unwrap(), &own), None);
    }

    #[test]
    fn while_a_key_is_rotated_either_key_opens_what_both_have_signed() {
        let signed = sign(ORIGIN, 7, record_hash(b"x"), &[key(1), key(2)]).unwrap();
        for number in [1, 2] {
            let trust = Trust::new(&[verifier_key(ORIGIN, &key(number))], &[], 0).unwrap();
            assert_eq!(trust.open(&signed.note).unwrap().size, 7);
        }
        assert_eq!(signed.note.lines().filter(|line| line.starts_with('—')).count(), 2);
    }
}
