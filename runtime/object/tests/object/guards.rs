//! What guards and views promise to the compiler.

use crate::derive::{Session, SessionMut, SessionView};
use crate::nested::{ClientMut, ClientView};

const fn assert_send<T: Send>() {}
const fn assert_sync<T: Sync>() {}

const _: () = assert_send::<SessionMut<'static>>();
const _: () = assert_sync::<SessionMut<'static>>();
const _: () = assert_send::<ClientMut<'static>>();

/// Compiles only while `T` is not `Send`: for a `Send` type two implementations fit, and the call is ambiguous.
macro_rules! assert_not_send {
    ($ty:ty) => {
        const _: () = {
            trait AmbiguousIfSend<A> {
                fn check() {}
            }
            impl<T: ?Sized> AmbiguousIfSend<()> for T {}
            impl<T: ?Sized + Send> AmbiguousIfSend<u8> for T {}
            let _ = <$ty as AmbiguousIfSend<_>>::check;
        };
    };
}

assert_not_send!(SessionView<'static>);
assert_not_send!(ClientView<'static>);

impl SessionMut<'_> {
    fn visit(&mut self) {
        *self.visits = self.visits.wrapping_add(1);
    }
}

impl SessionView<'_> {
    fn is_named(&self) -> bool {
        !self.nick().is_empty()
    }
}

#[test]
fn users_extend_the_generated_types() {
    let stage = crate::stage::Stage::new();
    let object = stage.object(&Session::default());
    let mut guard = <Session as kiln::Clustered>::guard(&object);
    guard.visit();
    assert_eq!(*guard.visits, 1);
    assert!(!<Session as kiln::Clustered>::view(object.pin()).is_named());
}

#[test]
fn debug_shows_no_content() {
    let stage = crate::stage::Stage::new();
    let mut session = Session::default();
    session.user = Some("secret".into());
    let object = stage.object(&session);
    let guard = <Session as kiln::Clustered>::guard(&object);
    assert_eq!(format!("{guard:?}"), "SessionMut { .. }");
    assert_eq!(format!("{:?}", <Session as kiln::Clustered>::view(object.pin())), "SessionView { .. }");
    assert_eq!(format!("{:?}", guard.user), r#"Some("secret")"#);
}
