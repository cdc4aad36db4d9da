package sqlx_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/natwise/natwise/sqlx"
)

// script has the server answer each line with what is next for it: "fail 40001", "die",
// "hang", or as ever.
func (s *stage) script(lines map[string][]string) {
	s.seen = func(c net.Conn, line string) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		next := lines[line]
		if len(next) == 0 {
			return false
		}
		lines[line] = next[1:]
		switch verb, rest, _ := strings.Cut(next[0], " "); verb {
		case "fail":
			fmt.Fprintf(c, "error %s\n", rest)
		case "die":
			c.Close()
		case "answer": // and die
			io.WriteString(c, "ok\n")
			c.Close()
		case "ok":
			io.WriteString(c, "ok\n")
		}
		return true
	}
}

func transfer(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, "update")
	return err
}

func TestATransactionIsRetriedWhereItIsKnownNotToHaveHappened(t *testing.T) {
	for name, c := range map[string]struct {
		script   map[string][]string
		policy   *sqlx.Policy
		attempts int
		fails    bool
	}{
		"all is well":                             {nil, &sqlx.Policy{}, 1, false},
		"a deadlock":                              {map[string][]string{"update": {"fail 40P01"}}, &sqlx.Policy{}, 2, false},
		"a conflict found at COMMIT":              {map[string][]string{"commit": {"fail 40001", "fail 40001"}}, &sqlx.Policy{}, 3, false},
		"three conflicts":                         {map[string][]string{"commit": {"fail 40001", "fail 40001", "fail 40001"}}, &sqlx.Policy{}, 3, true},
		"five are allowed":                        {map[string][]string{"update": {"fail 40001", "fail 40001", "fail 40001"}}, &sqlx.Policy{Attempts: 5}, 4, false},
		"something else":                          {map[string][]string{"update": {"fail 23505"}}, &sqlx.Policy{}, 1, true},
		"something else that is known":            {map[string][]string{"update": {"fail 55P03"}}, &sqlx.Policy{RolledBack: known("55P03")}, 2, false},
		"lost before COMMIT":                      {map[string][]string{"update": {"die"}}, &sqlx.Policy{}, 2, false},
		"lost between the last answer and COMMIT": {map[string][]string{"update": {"answer"}}, &sqlx.Policy{}, 2, false},
		"lost at BEGIN":                           {map[string][]string{"begin": {"die"}}, &sqlx.Policy{}, 1, false}, // by database/sql
		"lost at COMMIT":                          {map[string][]string{"commit": {"die"}}, &sqlx.Policy{}, 1, true},
		"lost at COMMIT, and that is fine":        {map[string][]string{"commit": {"die"}}, &sqlx.Policy{Idempotent: true}, 2, false},
	} {
		for _, liar := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, liar %t", name, liar), func(t *testing.T) {
				onStage(t, 8, func(t *testing.T, s *stage) {
					s.liar = liar
					script := make(map[string][]string)
					for line, answers := range c.script {
						script[line] = answers
					}
					s.script(script)
					s.open(sqlx.Config{})
					attempts := 0
					policy := sqlx.Policy{Attempts: c.policy.Attempts, Idempotent: c.policy.Idempotent, RolledBack: c.policy.RolledBack}
					err := sqlx.Retry(t.Context(), s.db, &policy, func(ctx context.Context, tx *sql.Tx) error {
						attempts++
						return transfer(ctx, tx)
					})
					if (err != nil) != c.fails || attempts != c.attempts {
						t.Errorf("%v after %d attempts, want %d", err, attempts, c.attempts)
					}
					if st := s.of.Stats(); st.InUse != 0 {
						t.Errorf("%d connections are in use", st.InUse)
					}
				})
			})
		}
	}
}

func known(state string) func(error) bool {
	return func(err error) bool { return errors.Is(err, toyError(state)) }
}

func TestAFunctionThatEndsItsTransactionItselfIsCalledOnce(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		s.script(map[string][]string{"commit": {"die", "die"}})
		s.open(sqlx.Config{})
		calls := 0
		err := sqlx.Retry(t.Context(), s.db, nil, func(ctx context.Context, tx *sql.Tx) error {
			calls++
			return tx.Commit()
		})
		if err == nil || calls != 1 {
			t.Errorf("%v after %d calls", err, calls)
		}
	})
}

// What a function has failed for by itself may look like a lost connection.
func TestAFunctionsOwnEOFIsItsOwn(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		s.open(sqlx.Config{})
		calls := 0
		err := sqlx.Retry(t.Context(), s.db, nil, func(context.Context, *sql.Tx) error {
			calls++
			return io.ErrUnexpectedEOF
		})
		if err != io.ErrUnexpectedEOF || calls != 1 {
			t.Errorf("%v after %d calls", err, calls)
		}
	})
}

// pgx 5.12 says of a COMMIT whose connection was lost that it is safe to retry.
func TestADriversWordOnWhatIsSafeIsNotTakenForACommit(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		s.seen = func(c net.Conn, line string) bool {
			if line == "commit" {
				c.Close()
			}
			return line == "commit"
		}
		s.promises = true
		for name, db := range map[string]*sql.DB{"plain": sql.OpenDB(toy{s}), "ours": s.open(sqlx.Config{})} {
			before := s.runs("commit")
			if err := sqlx.Retry(t.Context(), db, nil, transfer); err == nil {
				t.Errorf("%s: no error", name)
			}
			if n := s.runs("commit") - before; n != 1 {
				t.Errorf("%s: COMMIT was sent %d times", name, n)
			}
			if name == "plain" {
				db.Close()
			}
		}
	})
}

func TestAPanicRollsBack(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		s.open(sqlx.Config{})
		func() {
			defer func() { recover() }()
			sqlx.Retry(t.Context(), s.db, nil, func(context.Context, *sql.Tx) error { panic("oops") })
		}()
		if s.runs("rollback") != 1 || s.of.Stats().InUse != 0 {
			t.Errorf("ran: %v", s.ran)
		}
	})
}

func TestRetriesAreAFewOfManyTransactions(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		s.open(sqlx.Config{})
		failing := func(context.Context, *sql.Tx) error { return toyError("40001") }
		var policy sqlx.Policy
		attempts := func(n int) (all int) {
			for range n {
				sqlx.Retry(t.Context(), s.db, &policy, func(ctx context.Context, tx *sql.Tx) error {
					all++
					return failing(ctx, tx)
				})
			}
			return all
		}
		if n := attempts(100); n != 110 {
			t.Errorf("%d attempts at a hundred transactions of which nothing is known, want ten more", n)
		}
		for range 1100 {
			if err := sqlx.Retry(t.Context(), s.db, &policy, func(context.Context, *sql.Tx) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		if n := attempts(200); n != 300 {
			t.Errorf("%d attempts at two hundred, want the hundred more that a thousand can earn", n)
		}
	})
}

func TestARetryEndsWithItsContext(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		s.open(sqlx.Config{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := sqlx.Retry(ctx, s.db, &sqlx.Policy{First: time.Hour, Attempts: 9}, func(context.Context, *sql.Tx) error { return toyError("40001") })
		if took := time.Since(start); !errors.Is(err, toyError("40001")) || took > time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
}

func TestWithoutAConnectionNothingIsRetried(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		dials := 0
		s.dialer.Dialer.Dial = func(context.Context, string, string) (net.Conn, error) {
			dials++
			return nil, errors.New("refused")
		}
		s.open(sqlx.Config{})
		if err := sqlx.Retry(t.Context(), s.db, nil, transfer); err == nil || dials != 1 {
			t.Errorf("%v after %d dials", err, dials)
		}
	})
}

func TestBadPoliciesNameTheField(t *testing.T) {
	for want, p := range map[string]*sqlx.Policy{
		"Policy.Attempts is -1": {Attempts: -1},
		"Policy.First is -1s":   {First: -time.Second},
		"Policy.Max is -1s":     {Max: -time.Second},
		"Policy.Budget is 2":    {Budget: 2},
	} {
		db := sql.OpenDB(silent{})
		if err := sqlx.Retry(t.Context(), db, p, transfer); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		db.Close()
	}
}

// What go-sql-driver/mysql and go-mssqldb return.
type MySQLError struct {
	Number   uint16
	SQLState [5]byte
	Message  string
}

func (e *MySQLError) Error() string { return e.Message }

type mssqlError int32

func (e mssqlError) Error() string         { return "mssql" }
func (e mssqlError) SQLErrorNumber() int32 { return int32(e) }

func TestEachDriversWordForAConflictIsUnderstood(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		s.open(sqlx.Config{})
		for _, c := range []struct {
			err   error
			again bool
		}{
			{&MySQLError{Number: 1213}, true},
			{fmt.Errorf("transfer: %w", &MySQLError{Number: 1205}), true},
			{errors.Join(io.ErrNoProgress, &MySQLError{Number: 1213}), true},
			{&MySQLError{Number: 1062}, false},
			{mssqlError(1205), true},
			{mssqlError(3960), true},
			{mssqlError(2627), false},
			{toyError("40001"), true},
			{sql.ErrNoRows, false},
		} {
			attempts := 0
			err := sqlx.Retry(t.Context(), s.db, &sqlx.Policy{Budget: -1, Attempts: 2}, func(context.Context, *sql.Tx) error {
				attempts++
				return c.err
			})
			if !errors.Is(err, c.err) || (attempts == 2) != c.again {
				t.Errorf("%v: %d attempts, then %v", c.err, attempts, err)
			}
		}
	})
}
