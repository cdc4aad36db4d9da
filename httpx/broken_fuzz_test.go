package httpx_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"
)

// The scripts of both fuzz targets are programs of bytes. What is between two bytes
// nextConn is one connection's, and what is between two bytes nextWords is what it says:
// first when it is accepted, then after each request. The byte at the end of words
// tells how they end, and ID stands for the id of the request, so that a
// fuzzer can make good answers.
const (
	nextConn  = 0xf0
	nextWords = 0xf1
	thenFIN   = 0xf2
	thenRST   = 0xf3
	thenWait  = 0xf4 // the next words come a moment later
)

// maxWords bounds what a program can ask for.
const maxWords = 4 << 10

// words returns what connection n says at its k-th turn, and how that ends. Where the
// program says nothing, nothing is what is said.
func words(program []byte, n, k int) (says []byte, e ending, known bool) {
	conns := bytes.Split(program, []byte{nextConn})
	if n > len(conns) {
		return nil, goOn, false
	}
	turns := bytes.Split(conns[n-1], []byte{nextWords})
	if k >= len(turns) {
		return nil, silent, true
	}
	says = turns[k]
	switch {
	case bytes.HasSuffix(says, []byte{thenFIN}):
		return says[:len(says)-1], fin, true
	case bytes.HasSuffix(says, []byte{thenRST}):
		return says[:len(says)-1], rst, true
	}
	return says, goOn, true
}

// say writes words, with pauses, and ends as they say. It reports whether to go on.
func (p *speaker) say(says []byte, e ending, id string) (more bool) {
	for i, part := range bytes.Split(bytes.ReplaceAll(says, []byte("ID"), []byte(id)), []byte{thenWait}) {
		if i > 0 && i < 10 {
			time.Sleep(3 * brokenLatency)
		}
		if _, err := p.Write(part); err != nil {
			return false
		}
	}
	return p.end(e)
}

// The client asks four times, one after the other, and settles between. What it is
// answered is its own, every request ends in time, a POST runs once, and nothing is
// left in the end: inBroken sees to all of that.
func (b *broken) asksFourTimes(hasty byte) {
	for i, method := range []string{http.MethodGet, http.MethodPost, http.MethodHead, http.MethodPost} {
		timeout := patience
		if hasty>>i&1 == 1 {
			timeout = 5 * brokenLatency
		}
		b.askWithin(method, timeout)
		time.Sleep(100 * brokenLatency)
	}
}

func FuzzBrokenHTTP1(f *testing.F) {
	good := "HTTP/1.1 200 OK\r\nAnswers: ID\r\nContent-Length: 2\r\n\r\nok"
	for _, bad := range bad1 {
		if len(bad.says) < maxWords {
			end := map[ending]string{goOn: "", silent: "", fin: "\xf2", rst: "\xf3"}[bad.ending]
			f.Add(byte(0), []byte("\xf1"+bad.says+end+"\xf1"+good))
			f.Add(byte(3), []byte("\xf1"+good+"\xf1\xf4"+bad.says+end))
		}
	}
	f.Add(byte(0), []byte(good+"\xf1"+good+"\xf1"+good))
	f.Add(byte(0), []byte("HTTP/1.1 101\nConnection:Upgrade\nUpgrade:e\n\n"))
	f.Add(byte(0), []byte("\xf2\xf0\xf3\xf0garbage\xf0\xf1\xf2\xf0\xf1\xf3"))
	f.Add(byte(5), []byte("\xf1"+strings.Replace(good, "\r\n\r\n", "\r\n\xf4\r\n\xf4", 1)+"\xf1"+good+good))
	f.Fuzz(func(t *testing.T, hasty byte, program []byte) {
		if len(program) > maxWords {
			t.Skip()
		}
		serve := func(p *speaker) {
			says, e, known := words(program, p.n, 0)
			if known && !p.say(says, e, "") {
				p.hold()
				return
			}
			p.http1(func(p *speaker, k int, req *http.Request, id string) bool {
				says, e, known := words(program, p.n, k)
				if !known {
					return goodAnswer(p, k, req, id)
				}
				return e != silent && p.say(says, e, id)
			})
		}
		inBroken(t, plain1, serve, func(b *broken) { b.asksFourTimes(hasty) })
	})
}

// In FuzzBrokenHTTP2 words are frames: type, flags, which stream, and up to the next
// byte endFrame the payload. A type of rawBytes says the payload without a frame around it.
const (
	endFrame = 0xf5
	rawBytes = 0xef
)

// frames returns the frames that words stand for. Stream 1 is that of the request, 0
// that of the connection, and others are as far from the request's.
func frames(says []byte, stream uint32) []byte {
	var out []byte
	for f := range bytes.SplitSeq(says, []byte{endFrame}) {
		switch {
		case len(f) == 0:
		case f[0] == rawBytes:
			out = append(out, f[1:]...)
		case len(f) >= 3:
			on := uint32(0)
			if f[2] > 0 {
				on = stream + uint32(f[2]) - 1
			}
			if f[0] == fWindow && on != 0 && len(f) == 7 && f[3]&0x7f >= 0x40 {
				continue // net/http before Go 1.27 locks itself out if a stream's window overflows
			}
			out = append(out, frame(f[0], f[1], on, string(f[3:]))...)
		}
	}
	return out
}

// program2 writes frames as FuzzBrokenHTTP2 reads them.
func program2(frames ...string) string { return strings.Join(frames, "\xf5") }

func FuzzBrokenHTTP2(f *testing.F) {
	settings := program2("\x04\x00\x00", "\x04\x01\x00")
	good := program2("\x01\x04\x01"+fields(":status", "200", "answers", "ID"), "\x00\x01\x01ok")
	for _, bad := range []string{
		good,
		"",
		program2("\x04\x00\x00\x00\x03\x00\x00\x00\x00"),                   // no streams
		program2("\x04\x00\x00\x00\x03\x00\x00\x00\x01", good),             // one
		program2("\x04\x00\x00\x00\x04\x7f\xff\xff\xff", good),             // all the window there is
		program2("\x04\x00\x00\x00\x04\x80\x00\x00\x00", good),             // and more
		program2("\x04\x00\x00\x00\x05\x00\x00\x00\x00", good),             // no frames
		program2("\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"),           // GOAWAY that refuses
		program2("\x07\x00\x00\x7f\xff\xff\xff\x00\x00\x00\x00", good),     // GOAWAY that does not
		program2(good, "\x07\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00"),     // GOAWAY after the answer
		program2("\x03\x00\x01\x00\x00\x00\x07"),                           // REFUSED_STREAM
		program2("\x03\x00\x01\x00\x00\x00\x08"),                           // CANCEL
		program2("\x03\x00\x01\x00\x00\x00\x01"),                           // PROTOCOL_ERROR
		program2(good, "\x03\x00\x01\x00\x00\x00\x00"),                     // NO_ERROR after the answer
		program2("\x06\x00\x0012345678", "\x06\x01\x0012345678", good),     // pings
		program2("\x08\x00\x01\x00\x00\x00\x00", good),                     // windows
		program2("\x08\x00\x00\x7f\xff\xff\xff", good),                     //
		program2("\x05\x04\x01\x00\x00\x00\x02\x82", good),                 // a push
		program2("\x01\x00\x01\x88", "\x09\x04\x01", "\x00\x01\x01ok"),     // a continuation
		program2("\x01\x04\x01\x88", "\x00\x08\x01\xffok"),                 // padding
		program2("\x01\x04\x01\x88", "\x00\x00\x01ok", "\x01\x05\x01\x88"), // trailers
		program2("\x01\x04\x02\x88", "\x00\x01\x02ok"),                     // another stream
		program2("\xefHTTP/1.1 200 OK\r\n\r\n"),
	} {
		for _, end := range []string{"", "\xf2", "\xf3", "\xf4"} {
			f.Add(byte(0), []byte(settings+"\xf1"+bad+end+"\xf1"+good))
			f.Add(byte(0), []byte(settings+"\xf5"+bad+end+"\xf1"+good))
			f.Add(byte(2), []byte(settings+"\xf1"+good+"\xf1"+bad+end))
		}
	}
	f.Fuzz(func(t *testing.T, hasty byte, program []byte) {
		if len(program) > maxWords {
			t.Skip()
		}
		serve := func(p *speaker) {
			says, e, known := words(program, p.n, 0)
			if !known {
				p.http2(script{})
				return
			}
			p.http2(script{hello: string(frames(says, 1)), ending: e, turn: func(p *speaker2, k int, stream uint32, id string) bool {
				says, e, _ := words(program, p.n, k)
				if !mayRefuse(program, p.n) {
					p.counts(id)
				}
				return e != silent && p.say(frames(says, stream), e, id)
			}})
		}
		inBroken(t, plain2, serve, func(b *broken) { b.asksFourTimes(hasty) })
	})
}

// mayRefuse reports whether connection n may say that a request has not run: by
// RST_STREAM, GOAWAY or raw bytes.
func mayRefuse(program []byte, n int) bool {
	conn := bytes.Split(program, []byte{nextConn})[n-1]
	return bytes.ContainsAny(conn, "\x03\x07") || bytes.IndexByte(conn, rawBytes) >= 0
}
