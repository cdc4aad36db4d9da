package conformance

import (
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/lib/pq"
	"github.com/natwise/natwise/internal/e2e/drivers"
)

var arguments = []scenario{
	{name: "values of all types", run: values},
	{name: "named values", run: namedValues},
	{name: "pgx's own arguments", run: pgxArguments, only: drivers.PGX},
	{name: "lib/pq's arrays", run: pqArrays, only: drivers.PQ},
	{name: "uint64 with the high bit", run: unsigned, only: drivers.MySQL},
}

// Valuers that a program might have.
type (
	text     string
	valuer   struct{ v any }
	byValue  int
	refusing struct{}
	ownTime  time.Time
)

func (v *valuer) Value() (driver.Value, error) {
	if v == nil {
		return "of nil", nil
	}
	return v.v, nil
}
func (v byValue) Value() (driver.Value, error) { return int64(v) * 2, nil }
func (refusing) Value() (driver.Value, error)  { return nil, errors.New("not today") }
func (t ownTime) Value() (driver.Value, error) { return time.Time(t), nil }

// ask has one argument come back by each way that an argument can go.
func (s *subject) ask(label, query string, args ...any) {
	s.Helper()
	rows, err := s.db.Query(query, args...)
	s.rows(label+" by DB", rows, err)
	r, err := s.db.Exec(query, args...)
	s.done(label+" by Exec", r, err)
	tx, err := s.db.Begin()
	s.must(err)
	rows, err = tx.Query(query, args...)
	s.rows(label+" by Tx", rows, err)
	s.see(label, tx.Rollback())
	st, err := s.db.Prepare(query)
	if s.see(label+" prepared", err); err != nil {
		return
	}
	rows, err = st.Query(args...)
	s.rows(label+" by Stmt", rows, err)
	r, err = st.Exec(args...)
	s.done(label+" by Stmt's Exec", r, err)
	s.see(label, st.Close())
}

func values(s *subject) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678000000, time.FixedZone("", 3600))
	seven := 7
	for i, v := range []any{
		nil, 1, int8(-1), uint32(7), int64(math.MaxInt64), 1.5, float32(0.25), true, "text", text("own text"), []byte("bytes"), []byte(nil), []byte{},
		at, ownTime(at), &seven, (*int)(nil), byValue(3), new(byValue), (*byValue)(nil), &valuer{"v"}, (*valuer)(nil), valuer{"v"},
		&valuer{struct{}{}}, refusing{}, &refusing{}, (*refusing)(nil), sql.NullString{}, sql.NullInt64{Int64: 4, Valid: true}, sql.Null[string]{V: "n", Valid: true},
		json.RawMessage(`{"a": 1}`), struct{ A int }{1}, map[string]int{"a": 1}, []int{1, 2}, []string{"a", "b"}, [2]byte{1, 2}, make(chan int), func() {}, complex(1, 2),
		netip.MustParseAddr("192.0.2.1"), sql.RawBytes("raw"), math.NaN(), time.Second, errors.New("an error"), sql.Out{Dest: &seven},
	} {
		s.ask(fmt.Sprintf("%d %T", i, v), "SELECT "+s.text, v)
	}
	s.see("who", s.which(s.db))
}

func namedValues(s *subject) {
	s.ask("named", "SELECT "+s.text, sql.Named("a", "x"))
	s.ask("one of two", "SELECT "+s.text+", "+s.arg2, "x", sql.Named("b", "y"))
	s.ask("no name", "SELECT "+s.text, sql.Named("", "x"))
	s.ask("no letter", "SELECT "+s.text, sql.Named("1a", "x"))
	s.see("who", s.which(s.db))
}

func pgxArguments(s *subject) {
	s.ask("slices", "SELECT $1::int[], $2::text[]", []int32{1, 2}, []string{"a"})
	s.ask("a map", "SELECT $1::jsonb", map[string]any{"a": 1})
	s.ask("named arguments", "SELECT @x::text", pgx.NamedArgs{"x": "y"})
	s.ask("a mode", "SELECT $1::text", pgx.QueryExecModeSimpleProtocol, "x")
	s.ask("formats", "SELECT $1::text", pgx.QueryResultFormats{pgx.TextFormatCode}, "x")
	s.ask("an address", "SELECT $1::inet", netip.MustParsePrefix("192.0.2.0/24"))
	s.ask("no text", "SELECT $1::int", "x")
	s.see("who", s.which(s.db))
}

func pqArrays(s *subject) {
	s.ask("an array", "SELECT $1::int[]", pq.Array([]int{1, 2}))
	s.ask("of nothing", "SELECT $1::int[]", pq.Array([]int(nil)))
	s.ask("by any()", "SELECT 1 WHERE 2 = ANY($1)", pq.Array([]int64{1, 2}))
	s.ask("of chans", "SELECT $1::int[]", pq.Array([]chan int{nil}))
	s.see("who", s.which(s.db))
}

func unsigned(s *subject) {
	s.ask("uint64", "SELECT ?", uint64(math.MaxUint64))
	s.ask("uint", "SELECT CAST(? AS UNSIGNED)", uint(1<<63))
	s.ask("own", "SELECT ?", &valuer{uint64(math.MaxUint64)})
	s.see("who", s.which(s.db))
}
