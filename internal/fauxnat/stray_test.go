package fauxnat_test

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

func TestALiarAcknowledgesAndHandsOnNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, azure(128))
		near, far := l.open(t)
		defer near.Close()
		defer far.Close()
		near.Write([]byte("true"))
		if n := l.nat.Lie(netip.MustParseAddrPort(server), 19*time.Second); n != 1 {
			t.Fatalf("%d flows are lied to", n)
		}
		time.Sleep(time.Hour / 60)
		for range 3 {
			if n, err := near.Write([]byte("lost")); n != 4 || err != nil {
				t.Errorf("Write: %d, %v", n, err)
			}
		}
		far.Write([]byte("lost too"))
		far.SetReadDeadline(time.Now().Add(time.Hour))
		start := time.Now()
		if err := read(near); err != io.EOF || time.Since(start) != 19*time.Second {
			t.Errorf("Read ended after %v with %v", time.Since(start), err)
		}
		if got, _ := io.ReadAll(far); string(got) != "true" {
			t.Errorf("the server read %q", got)
		}
	})
}

func TestALiarKeepsARequestWaitingUntilItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, azure(128))
		near, far := l.open(t)
		defer near.Close()
		time.AfterFunc(time.Second, func() { l.nat.Lie(netip.MustParseAddrPort(server), 0) }) // while it waits
		time.AfterFunc(2*time.Second, func() { far.Write([]byte("x")); far.Close() })
		near.SetReadDeadline(time.Now().Add(time.Hour))
		if err := read(near); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read: %v", err)
		}
		if err := ended(near); err != nil {
			t.Errorf("through a liar its end is known: %v", err)
		}
		near.SetWriteDeadline(time.Now())
		if _, err := near.Write([]byte("late")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write after its deadline: %v", err)
		}
	})
}

func TestALieIsForTheFlowsThatThereAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, azure(128))
		old, _ := l.open(t)
		defer old.Close()
		if n := l.nat.Lie(netip.MustParseAddrPort("20.9.9.9:443"), 0); n != 0 {
			t.Errorf("%d flows to somewhere else are lied to", n)
		}
		if n := l.nat.Lie(netip.MustParseAddrPort(server), 0); n != 1 {
			t.Errorf("%d flows are lied to", n)
		}
		if n := l.nat.Lie(netip.MustParseAddrPort(server), 0); n != 0 {
			t.Errorf("%d flows are lied to once more", n)
		}
		near, far := l.open(t)
		defer near.Close()
		go near.Write([]byte("x"))
		if err := read(far); err != nil {
			t.Errorf("a new flow: %v", err)
		}
	})
}

func TestWhatIsWrittenToALiarKeepsTheFlowAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, azure(128))
		near, _ := l.open(t)
		l.nat.Lie(netip.MustParseAddrPort(server), 0)
		for range 5 {
			time.Sleep(200 * time.Second)
			near.Write([]byte("x"))
		}
		if s := l.nat.Stats(); s.Live != 1 || s.Astray != 1 {
			t.Errorf("after 1000 s: %+v", s.Counts)
		}
		near.Close()
		if s := l.nat.Stats(); s.Live != 0 || s.Held != 1 || s.Astray != 0 {
			t.Errorf("closed: %+v", s.Counts)
		}
	})
}

func TestConnsThatLeadNowhereAreCountedUntilTheirClientKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, azure(128))
		astray := func(want int, when string) {
			t.Helper()
			if got := l.nat.Stats().Astray; got != want {
				t.Errorf("%s: %d conns are astray, want %d", when, got, want)
			}
		}
		forgotten, _ := l.open(t)
		astray(0, "open")
		time.Sleep(240 * time.Second)
		astray(1, "forgotten")
		lied, _ := l.open(t)
		defer lied.Close()
		l.nat.Lie(netip.MustParseAddrPort(server), time.Second)
		astray(2, "lied to")
		forgotten.Close()
		astray(1, "closed")
		lied.Write([]byte("x"))
		time.Sleep(time.Second)
		synctest.Wait()
		astray(0, "after the liar's FIN")
		if s := l.nat.Stats(); s.Live != 1 || s.Strayed != 2 {
			t.Errorf("half closed: %+v", s.Counts)
		}
	})
}

func TestTheTableTellsWhoSpokeLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, azure(128))
		near, far := l.open(t)
		defer near.Close()
		asked := func(want bool, when string) {
			t.Helper()
			if got := l.nat.Flows()[0].Asked; got != want {
				t.Errorf("%s: an answer is due: %t", when, got)
			}
		}
		asked(false, "open")
		near.Write([]byte("?"))
		asked(true, "asked")
		go far.Write([]byte("!"))
		read(near)
		asked(false, "answered")
	})
}

func TestWithoutAKernelNothingCanBeDarkened(t *testing.T) {
	l := newLab(t, azure(128))
	near, _ := l.open(t)
	defer near.Close()
	if n, err := l.nat.Darken(netip.MustParseAddrPort(server)); n != 0 || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("%d flows went dark: %v", n, err)
	}
	if s := l.nat.Stats(); s.Astray != 0 {
		t.Errorf("the NAT counted %+v", s.Counts)
	}
}
