package sqlx_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/sqlx"
)

// FuzzAStatementRunsOnceAndErrorsSayWhetherItDid runs a program of statements against a
// server that dies before, during and after them, with a driver that is honest or not.
// Each byte is a statement: how it is sent, and what its server does with it.
func FuzzAStatementRunsOnceAndErrorsSayWhetherItDid(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7}, true)
	f.Add([]byte{8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23}, false)
	f.Add([]byte{0, 6, 0, 6, 14, 22, 30, 1, 9, 17, 25}, true)
	f.Fuzz(func(t *testing.T, program []byte, liar bool) {
		if len(program) > 40 {
			t.Skip("long enough")
		}
		onStage(t, 8, func(t *testing.T, s *stage) {
			s.liar = liar
			s.seen = obey
			s.open(sqlx.Config{Max: 3})
			for i, b := range program {
				fate, way := int(b%8), int(b/8%4)
				id := fmt.Sprintf("%d insert %d", fate, i)
				err := s.send(id, way)
				judge(t, id, s.runs(id), err)
			}
			if st := s.of.Stats(); st.InUse != 0 || st.Size > 3 {
				t.Errorf("in the end %d connections are in use, of %d", st.InUse, st.Size)
			}
		})
	})
}

// obey is a server that does with a statement what its first word says.
func obey(c net.Conn, line string) bool {
	fate, _, _ := strings.Cut(strings.TrimPrefix(line, "prepare "), " ")
	prepared := strings.HasPrefix(line, "prepare ")
	switch {
	case fate == "1" && !prepared: // it dies having run it
		c.Close()
	case fate == "2": // having begun to answer
		io.WriteString(c, "o")
		c.Close()
	case fate == "3" && !prepared: // it never answers
	case fate == "4":
		io.WriteString(c, "error 23505\n")
	case fate == "5": // it answers and is gone
		io.WriteString(c, "ok\n")
		c.Close()
	case fate == "6" && !prepared: // it is reset
		c.(interface{ SetLinger(int) error }).SetLinger(0)
		c.Close()
	default:
		return false
	}
	return true
}

// send runs a statement in one of four ways.
func (s *stage) send(id string, way int) error {
	ctx, cancel := context.WithTimeout(s.Context(), time.Second)
	defer cancel()
	defer synctest.Wait()
	switch way {
	case 1:
		stmt, err := s.db.PrepareContext(ctx, id)
		if err != nil {
			return err
		}
		defer stmt.Close()
		_, err = stmt.ExecContext(ctx)
		return err
	case 2:
		tx, err := s.db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(ctx, id); err != nil {
			return err
		}
		tx.Commit() // the toy's statements run at once
		return nil
	case 3:
		conn, err := s.db.Conn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.ExecContext(ctx, id)
		return err
	}
	_, err := s.db.ExecContext(ctx, id)
	return err
}

// judge compares what the server has run with what was said of it.
func judge(t *testing.T, id string, ran int, err error) {
	t.Helper()
	var lost *sqlx.LostError
	switch safe := dialer.SafeToRetry(err) || errors.Is(err, driver.ErrBadConn); {
	case ran > 1:
		t.Errorf("%s ran %d times", id, ran)
	case err == nil && ran == 0:
		t.Errorf("%s succeeded and never ran", id)
	case safe && ran > 0:
		t.Errorf("%s ran, and is said to be safe to retry: %v", id, err)
	case errors.As(err, &lost) && ran > 0 && !lost.Sent:
		t.Errorf("%s ran, and nothing is said to be sent: %v", id, err)
	}
}
