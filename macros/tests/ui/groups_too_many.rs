use kiln::Clustered;

#[derive(Clustered)]
struct Session {
    #[clustered(lock = "g0")]
    f0: u8,
    #[clustered(lock = "g1")]
    f1: u8,
    #[clustered(lock = "g2")]
    f2: u8,
    #[clustered(lock = "g3")]
    f3: u8,
    #[clustered(lock = "g4")]
    f4: u8,
    #[clustered(lock = "g5")]
    f5: u8,
    #[clustered(lock = "g6")]
    f6: u8,
    #[clustered(lock = "g7")]
    f7: u8,
    #[clustered(lock = "g8")]
    f8: u8,
    #[clustered(lock = "g9")]
    f9: u8,
    #[clustered(lock = "g10")]
    f10: u8,
    #[clustered(lock = "g11")]
    f11: u8,
    #[clustered(lock = "g12")]
    f12: u8,
    #[clustered(lock = "g13")]
    f13: u8,
    #[clustered(lock = "g14")]
    f14: u8,
    #[clustered(lock = "g15")]
    f15: u8,
    #[clustered(lock = "g16")]
    f16: u8,
    #[clustered(lock = "g17")]
    f17: u8,
    #[clustered(lock = "g18")]
    f18: u8,
    #[clustered(lock = "g19")]
    f19: u8,
    #[clustered(lock = "g20")]
    f20: u8,
    #[clustered(lock = "g21")]
    f21: u8,
    #[clustered(lock = "g22")]
    f22: u8,
    #[clustered(lock = "g23")]
    f23: u8,
    #[clustered(lock = "g24")]
    f24: u8,
    #[clustered(lock = "g25")]
    f25: u8,
    #[clustered(lock = "g26")]
    f26: u8,
    #[clustered(lock = "g27")]
    f27: u8,
    #[clustered(lock = "g28")]
    f28: u8,
    #[clustered(lock = "g29")]
    f29: u8,
    #[clustered(lock = "g30")]
    f30: u8,
    #[clustered(lock = "g31")]
    f31: u8,
    #[clustered(lock = "g32")]
    f32: u8,
    #[clustered(lock = "g33")]
    f33: u8,
    #[clustered(lock = "g34")]
    f34: u8,
    #[clustered(lock = "g35")]
    f35: u8,
    #[clustered(lock = "g36")]
    f36: u8,
    #[clustered(lock = "g37")]
    f37: u8,
    #[clustered(lock = "g38")]
    f38: u8,
    #[clustered(lock = "g39")]
    f39: u8,
    #[clustered(lock = "g40")]
    f40: u8,
    #[clustered(lock = "g41")]
    f41: u8,
    #[clustered(lock = "g42")]
    f42: u8,
    #[clustered(lock = "g43")]
    f43: u8,
    #[clustered(lock = "g44")]
    f44: u8,
    #[clustered(lock = "g45")]
    f45: u8,
    #[clustered(lock = "g46")]
    f46: u8,
    #[clustered(lock = "g47")]
    f47: u8,
    #[clustered(lock = "g48")]
    f48: u8,
    #[clustered(lock = "g49")]
    f49: u8,
    #[clustered(lock = "g50")]
    f50: u8,
    #[clustered(lock = "g51")]
    f51: u8,
    #[clustered(lock = "g52")]
    f52: u8,
    #[clustered(lock = "g53")]
    f53: u8,
    #[clustered(lock = "g54")]
    f54: u8,
    #[clustered(lock = "g55")]
    f55: u8,
    #[clustered(lock = "g56")]
    f56: u8,
    #[clustered(lock = "g57")]
    f57: u8,
    #[clustered(lock = "g58")]
    f58: u8,
    #[clustered(lock = "g59")]
    f59: u8,
    #[clustered(lock = "g60")]
    f60: u8,
    #[clustered(lock = "g61")]
    f61: u8,
    #[clustered(lock = "g62")]
    f62: u8,
    #[clustered(lock = "g63")]
    f63: u8,
}

fn main() {}
