/// One measured stretch of time.
pub struct Round {
    /// What was done and checked.
    pub done: u64,
    /// How long it took.
    pub seconds: f64,
    /// Each operation's time in microseconds, unsorted.
    pub micros: Vec<u32>,
}

/// CPU time in a round, in cores.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cores {
    /// The product's server processes.
    pub server: f64,
    /// PostgreSQL; 0 with SQLite, which lives in the server.
    pub database: f64,
    /// The load generator.
    pub client: f64,
}

/// The rounds of one contestant.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    rates: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    max: f64,
    cores: Vec<Cores>,
}

impl Rounds {
    /// Takes a round in, with the CPU that went into it where it was watched.
    pub fn push(&mut self, round: Round, cores: Option<Cores>) {
        self.rates.push(round.done as f64 / round.seconds);
        self.cores.extend(cores);
        self.push_times(round.micros);
    }

    /// Takes times in, in microseconds, without a rate.
    pub fn push_times(&mut self, mut micros: Vec<u32>) {
        if micros.is_empty() {
            return;
        }
        micros.sort_unstable();
        let last = micros.len() - 1;
        let millis = |part: f64| f64::from(micros[(last as f64 * part).round() as usize]) / 1e3;
        self.p50.push(millis(0.5));
        self.p99.push(millis(0.99));
        self.max = self.max.max(millis(1.0));
    }

    /// Takes a rate in that was not made of single operations.
    pub fn push_rate(&mut self, rate: f64) {
        self.rates.push(rate);
    }

    /// The median rate per second; 0 without rounds.
    pub fn rate(&self) -> f64 {
        median(&self.rates)
    }

    /// The median of the rounds' p50, milliseconds.
    pub fn p50(&self) -> f64 {
        median(&self.p50)
    }

    /// The median of the rounds' p99, milliseconds.
    pub fn p99(&self) -> f64 {
        median(&self.p99)
    }

    /// Every round's rate in order, for people.
    pub fn all(&self) -> String {
        self.rates.iter().map(|rate| number(*rate)).collect::<Vec<_>>().join(" · ")
    }

    /// Rates and times in one line, for people.
    fn summary(&self) -> String {
        let mut parts = Vec::new();
        if !self.rates.is_empty() {
            parts.push(format!("{}/s ({})", number(self.rate()), self.all()));
        }
        if !self.p50.is_empty() {
            let (p50, p99, max) = (number(self.p50()), number(self.p99()), number(self.max));
            parts.push(format!("p50 {p50} ms, p99 {p99} ms, max {max} ms"));
        }
        parts.join(", ")
    }

    fn cores(&self) -> Option<Cores> {
        let of = |part: fn(&Cores) -> f64| median(&self.cores.iter().map(part).collect::<Vec<_>>());
        (!self.cores.is_empty()).then(|| Cores {
            server: of(|cores| cores.server),
            database: of(|cores| cores.database),
            client: of(|cores| cores.client),
        })
    }
}

/// The middle one; the mean of the two in the middle where the number is even; 0 of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[half],
        _ => f64::midpoint(sorted[half - 1], sorted[half]),
    }
}

/// A goal, and whether it is reached.
#[derive(Clone, Debug)]
pub struct Goal {
    /// In words, with the figure that was reached.
    pub text: String,
    /// Some(false) = missed; None = not measured in this run.
    pub met: Option<bool>,
}

impl Goal {
    /// A figure that must not be below a bound; None = not measured.
    pub fn at_least(what: &str, figure: Option<f64>, bound: f64) -> Self {
        Self::new(what, figure, "≥", bound, figure.map(|figure| figure >= bound))
    }

    /// A figure that must not be above a bound; None = not measured.
    pub fn at_most(what: &str, figure: Option<f64>, bound: f64) -> Self {
        Self::new(what, figure, "≤", bound, figure.map(|figure| figure <= bound))
    }

    /// Something that either holds or does not.
    pub fn holds(what: &str, holds: bool) -> Self {
        Self { text: what.to_owned(), met: Some(holds) }
    }

    fn new(what: &str, figure: Option<f64>, sign: &str, bound: f64, met: Option<bool>) -> Self {
        let figure = figure.map_or("not measured".to_owned(), number);
        Self { text: format!("{what}: {figure} ({sign} {})", number(bound)), met }
    }
}

/// A line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// On which engine.
    pub engine: &'static str,
    /// The product's rounds.
    pub product: Rounds,
    /// Peers with their rounds; the best one counts.
    pub peers: Vec<(String, Rounds)>,
    /// Raw limits with their rounds, the one that the goal is about first.
    pub raw: Vec<(String, Rounds)>,
    /// What is to be reached.
    pub goals: Vec<Goal>,
    /// What else was seen.
    pub notes: Vec<String>,
}

impl Row {
    /// A line without rivals and goals yet.
    pub fn new(name: impl Into<String>, engine: &'static str, product: Rounds) -> Self {
        let name = name.into();
        Self { name, engine, product, peers: vec![], raw: vec![], goals: vec![], notes: vec![] }
    }

    /// The best peer's rounds.
    pub fn best_peer(&self) -> Option<&(String, Rounds)> {
        self.peers.iter().max_by(|one, other| one.1.rate().total_cmp(&other.1.rate()))
    }

    /// The product's rate as a multiple of the best peer's.
    pub fn to_peer(&self) -> Option<f64> {
        ratio(self.product.rate(), self.best_peer()?.1.rate())
    }

    /// The product's rate as a part of the first raw limit.
    pub fn to_raw(&self) -> Option<f64> {
        ratio(self.product.rate(), self.raw.first()?.1.rate())
    }

    /// Says it on stderr, as soon as it is known.
    pub fn announce(self) -> Self {
        eprintln!("{} · {}: {}", self.name, self.engine, self.product.summary());
        for (name, rounds) in self.peers.iter().chain(&self.raw) {
            eprintln!("    {name}: {}", rounds.summary());
        }
        for goal in &self.goals {
            eprintln!("    {} {}", mark(goal.met), goal.text);
        }
        for note in &self.notes {
            eprintln!("    {note}");
        }
        self
    }
}

fn ratio(one: f64, other: f64) -> Option<f64> {
    (other > 0.0).then(|| one / other)
}

fn mark(met: Option<bool>) -> &'static str {
    match met {
        Some(true) => "met",
        Some(false) => "MISSED",
        None => "not measured",
    }
}

/// The table as Markdown, with what could not stand in a cell below it.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| row | engine | per s | p50 ms | p99 ms | max ms | server cores | database cores | client cores | × peer | of raw limit | goals |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let product = &row.product;
        let millis = |value: f64| if product.max > 0.0 { number(value) } else { "–".to_owned() };
        let cores = product.cores();
        let part = |part: fn(&Cores) -> f64| {
            cores.as_ref().map_or("–".to_owned(), |cores| format!("{:.2}", part(cores)))
        };
        let times = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.2}"));
        let goals: Vec<String> =
            row.goals.iter().map(|goal| format!("**{}** {}", mark(goal.met), goal.text)).collect();
        let cells = [
            row.name.clone(),
            row.engine.to_owned(),
            if product.rates.is_empty() { "–".to_owned() } else { number(product.rate()) },
            millis(product.p50()),
            millis(product.p99()),
            millis(product.max),
            part(|cores| cores.server),
            part(|cores| cores.database),
            part(|cores| cores.client),
            times(row.to_peer()),
            times(row.to_raw()),
            goals.join("; "),
        ];
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text.push_str("\nRounds in order, and what else was seen:\n\n");
    for row in rows {
        let rivals = row.peers.iter().chain(&row.raw);
        let mut parts = vec![row.product.summary()];
        parts.extend(rivals.map(|(name, rounds)| format!("{name} {}", rounds.summary())));
        parts.extend(row.notes.iter().cloned());
        parts.retain(|part| !part.is_empty());
        text.push_str(&format!("- {} · {}: {}", row.name, row.engine, parts.join("; ")));
        text.push('\n');
    }
    text
}

/// A figure with as many digits as mean something.
pub fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => {
            let digits = format!("{value:.0}");
            let mut grouped = String::new();
            for (place, digit) in digits.chars().enumerate() {
                if place > 0 && digit.is_ascii_digit() && (digits.len() - place).is_multiple_of(3) {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            grouped
        }
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_the_median_of_its_rounds_and_the_worst_of_their_maxima() {
        let mut rounds = Rounds::default();
        for (done, slowest) in [(300, 9_000), (100, 50_000), (200, 7_000)] {
            let mut micros = vec![1_000; 98];
            micros.extend([4_000, slowest]);
            rounds.push(Round { done, seconds: 2.0, micros }, None);
        }
        assert_eq!((rounds.rate(), rounds.p50(), rounds.p99(), rounds.max), (100.0, 1.0, 4.0, 50.0));
    }

    #[test]
    fn a_goal_that_was_not_measured_is_neither_met_nor_missed() {
        let row = Row::new("r", "SQLite", Rounds::default());
        assert_eq!(Goal::at_least("× peer", row.to_peer(), 6.0).met, None);
        assert_eq!(Goal::at_least("× peer", Some(6.0), 6.0).met, Some(true));
        assert_eq!(Goal::at_most("p99 ms", Some(80.1), 80.0).met, Some(false));
    }

    #[test]
    fn figures_have_as_many_digits_as_mean_something() {
        assert_eq!([0.7, 12.34, 123.4, 1_234_567.8].map(number), ["0.70", "12.3", "123", "1,234,568"]);
    }
}
