//! The whole table of one lock: what each event does to it, and what is said.

use super::*;
use expect_test::expect;

const A: NodeSlot = NodeSlot::from_bits(0);
const B: NodeSlot = NodeSlot::from_bits(1);
const C: NodeSlot = NodeSlot::from_bits(2);

#[derive(Clone, Copy)]
enum Happens {
    Asks(NodeSlot, Mode),
    Releases(NodeSlot),
    Downgrades(NodeSlot),
    Leaves(NodeSlot),
    Operation,
}

struct Table {
    lock: Lock,
    tokens: Tokens,
    requests: u64,
}

fn name(party: Party) -> &'static str {
    match party {
        Party::Node(A) => "a",
        Party::Node(B) => "b",
        Party::Node(_) => "c",
        Party::Operation(_) => "op",
    }
}

fn letter(mode: Mode) -> &'static str {
    match mode {
        Mode::Read => "r",
        Mode::Write => "w",
    }
}

impl Table {
    fn new(before: &[Happens]) -> Self {
        let mut table = Self { lock: Lock::default(), tokens: Tokens::new(Epoch::from_bits(1)), requests: 0 };
        for event in before {
            table.happens(*event);
        }
        table
    }

    fn happens(&mut self, event: Happens) -> String {
        let mut waiter = |party, mode| {
            self.requests += 1;
            Waiter {
                party,
                mode,
                request: RequestId::from_bits(self.requests),
                want_record: false,
                since: Duration::ZERO,
            }
        };
        let token = |lock: &Lock, node| {
            let held = lock.holders.iter().find(|holder| holder.party == Party::Node(node));
            held.map_or_else(Token::default, |holder| holder.token)
        };
        match event {
            Happens::Asks(node, mode) => self.lock.request(waiter(Party::Node(node), mode)),
            Happens::Operation => self.lock.request(waiter(Party::Operation(OperationId::default()), Mode::Write)),
            Happens::Releases(node) => drop(self.lock.release(node, token(&self.lock, node), false)),
            Happens::Downgrades(node) => drop(self.lock.release(node, token(&self.lock, node), true)),
            Happens::Leaves(node) => drop(self.lock.drop_party(Party::Node(node))),
        }
        let mut steps = Vec::new();
        self.lock.advance(Duration::ZERO, &mut self.tokens, &mut steps);
        let said = steps.iter().map(|step| match step {
            Step::Grant { waiter, mode, .. } => format!(" +{}{}", name(waiter.party), letter(*mode)),
            Step::Recall { node, wanted, .. } => format!(" -{}{}", name(Party::Node(*node)), letter(*wanted)),
        });
        said.collect()
    }

    /// Holders (`!` and what for, when recalled), then waiters.
    fn show(&self) -> String {
        let holders = self.lock.holders.iter().map(|holder| {
            let recalled = holder.recalled.map(|wanted| format!("!{}", letter(wanted)));
            format!("{}{}{}", name(holder.party), letter(holder.mode), recalled.unwrap_or_default())
        });
        let waiters = self.lock.queue.iter().map(|waiter| format!("{}{}", name(waiter.party), letter(waiter.mode)));
        let (holders, waiters): (Vec<_>, Vec<_>) = (holders.collect(), waiters.collect());
        format!("[{}|{}]", holders.join(" "), waiters.join(" "))
    }
}

/// `+` grants, `-` recalls (and what for), then holders and waiters afterwards.
#[test]
fn table() {
    use Happens::{Asks, Downgrades, Leaves, Operation, Releases};
    use Mode::{Read, Write};
    let states: &[&[Happens]] = &[
        &[],
        &[Asks(A, Read)],
        &[Asks(A, Read), Asks(B, Read)],
        &[Asks(A, Write)],
        &[Asks(A, Write), Asks(B, Read)],
        &[Asks(A, Write), Asks(B, Write)],
        &[Asks(A, Read), Asks(B, Write)],
        &[Asks(A, Read), Asks(B, Write), Asks(A, Write)],
        &[Asks(A, Write), Asks(B, Read), Asks(C, Write)],
        &[Asks(A, Write), Asks(B, Write), Asks(A, Write)],
        &[Operation],
    ];
    let events = [
        ("a asks r", Asks(A, Read)),
        ("a asks w", Asks(A, Write)),
        ("c asks r", Asks(C, Read)),
        ("c asks w", Asks(C, Write)),
        ("a releases", Releases(A)),
        ("a downgrades", Downgrades(A)),
        ("a leaves", Leaves(A)),
        ("b leaves", Leaves(B)),
        ("operation", Operation),
    ];
    let mut out = String::new();
    for state in states {
        out += &format!("{}\n", Table::new(state).show());
        for (what, event) in events {
            let mut table = Table::new(state);
            let said = table.happens(event);
            out += &format!("  {what:<12}{said:<12} {}\n", table.show());
        }
    }
    expect![[r#"
        [|]
          a asks r     +ar         [ar|]
          a asks w     +aw         [aw|]
          c asks r     +cr         [cr|]
          c asks w     +cw         [cw|]
          a releases               [|]
          a downgrades             [|]
          a leaves                 [|]
          b leaves                 [|]
          operation    +opw        [opw|]
        [ar|]
          a asks r     +ar         [ar|]
          a asks w     +aw         [aw|]
          c asks r     +cr         [ar cr|]
          c asks w     -aw         [ar!w|cw]
          a releases               [|]
          a downgrades             [ar|]
          a leaves                 [|]
          b leaves                 [ar|]
          operation    -aw         [ar!w|opw]
        [ar br|]
          a asks r     +ar         [ar br|]
          a asks w     -bw         [ar br!w|aw]
          c asks r     +cr         [ar br cr|]
          c asks w     -aw -bw     [ar!w br!w|cw]
          a releases               [br|]
          a downgrades             [ar br|]
          a leaves                 [br|]
          b leaves                 [ar|]
          operation    -aw -bw     [ar!w br!w|opw]
        [aw|]
          a asks r     +aw         [aw|]
          a asks w     +aw         [aw|]
          c asks r     -ar         [aw!r|cr]
          c asks w     -aw         [aw!w|cw]
          a releases               [|]
          a downgrades             [ar|]
          a leaves                 [|]
          b leaves                 [aw|]
          operation    -aw         [aw!w|opw]
        [aw!r|br]
          a asks r                 [aw!r|br ar]
          a asks w                 [aw!r|br aw]
          c asks r                 [aw!r|br cr]
          c asks w     -aw         [aw!w|br cw]
          a releases   +br         [br|]
          a downgrades +br         [ar br|]
          a leaves     +br         [br|]
          b leaves                 [aw!r|]
          operation    -aw         [aw!w|br opw]
        [aw!w|bw]
          a asks r                 [aw!w|bw ar]
          a asks w                 [aw!w|bw aw]
          c asks r                 [aw!w|bw cr]
          c asks w                 [aw!w|bw cw]
          a releases   +bw         [bw|]
          a downgrades -aw         [ar!w|bw]
          a leaves     +bw         [bw|]
          b leaves                 [aw!w|]
          operation                [aw!w|bw opw]
        [ar!w|bw]
          a asks r                 [ar!w|bw ar]
          a asks w                 [ar!w|bw aw]
          c asks r                 [ar!w|bw cr]
          c asks w                 [ar!w|bw cw]
          a releases   +bw         [bw|]
          a downgrades -aw         [ar!w|bw]
          a leaves     +bw         [bw|]
          b leaves                 [ar!w|]
          operation                [ar!w|bw opw]
        [ar!w|bw aw]
          a asks r                 [ar!w|bw aw ar]
          a asks w                 [ar!w|bw aw aw]
          c asks r                 [ar!w|bw aw cr]
          c asks w                 [ar!w|bw aw cw]
          a releases   +bw -bw     [bw!w|aw]
          a downgrades -aw         [ar!w|bw aw]
          a leaves     +bw         [bw|]
          b leaves     +aw         [aw|]
          operation                [ar!w|bw aw opw]
        [aw!w|br cw]
          a asks r                 [aw!w|br cw ar]
          a asks w                 [aw!w|br cw aw]
          c asks r                 [aw!w|br cw cr]
          c asks w                 [aw!w|br cw cw]
          a releases   +br -bw     [br!w|cw]
          a downgrades +br -aw -bw [ar!w br!w|cw]
          a leaves     +br -bw     [br!w|cw]
          b leaves                 [aw!w|cw]
          operation                [aw!w|br cw opw]
        [aw!w|bw aw]
          a asks r                 [aw!w|bw aw ar]
          a asks w                 [aw!w|bw aw aw]
          c asks r                 [aw!w|bw aw cr]
          c asks w                 [aw!w|bw aw cw]
          a releases   +bw -bw     [bw!w|aw]
          a downgrades -aw         [ar!w|bw aw]
          a leaves     +bw         [bw|]
          b leaves                 [aw!w|aw]
          operation                [aw!w|bw aw opw]
        [opw|]
          a asks r                 [opw|ar]
          a asks w                 [opw|aw]
          c asks r                 [opw|cr]
          c asks w                 [opw|cw]
          a releases               [opw|]
          a downgrades             [opw|]
          a leaves                 [opw|]
          b leaves                 [opw|]
          operation    +opw        [opw|]
    "#]]
    .assert_eq(&out);
}

#[test]
fn a_lock_takes_sixteen_bytes_in_an_object() {
    assert_eq!(size_of::<super::super::grants::Locks>(), 16);
    assert_eq!(size_of::<super::super::interest::Interest>(), 16);
    assert_eq!(size_of::<Option<super::super::object::Object>>(), 80);
}
