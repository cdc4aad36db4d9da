package main

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"testing"
)

func TestAPictureOfFewColoursKeepsThemAll(t *testing.T) {
	full := image.NewRGBA(image.Rect(0, 0, 16, 16))
	for i := range 256 {
		full.Set(i%16, i/16, color.RGBA{uint8(i), uint8(i / 2), 200, 255})
	}
	if off := farthest(t, full); off != 0 {
		t.Errorf("a colour is off by %d", off)
	}
}

func TestAPictureOfManyColoursKeepsThemNearly(t *testing.T) {
	full := image.NewRGBA(image.Rect(0, 0, 64, 64))
	for i := range 64 * 64 {
		full.Set(i%64, i/64, color.RGBA{uint8(4 * (i % 64)), uint8(4 * (i / 64)), 128, 255})
	}
	if off := farthest(t, full); off > 32 { // 128 boxes of 32 by 16, or half as large again
		t.Errorf("a colour is off by %d", off)
	}
}

func TestWhatIsPlainInAPictureStaysAsItWas(t *testing.T) {
	plain := color.RGBA{0xe5, 0xea, 0xfb, 255}
	full := image.NewRGBA(image.Rect(0, 0, 64, 65))
	for i := range 64 * 64 {
		full.Set(i%64, i/64, color.RGBA{uint8(192 + i%64), uint8(192 + i/64), 0xf8, 255})
	}
	for x := range 64 {
		full.Set(x, 64, plain)
	}
	if off := farthest(t, full.SubImage(image.Rect(0, 64, 64, 65))); off != 0 {
		t.Errorf("alone, it is off by %d", off)
	}
	if got := rgbOf(shrunk(t, full).At(9, 64)); got != rgbOf(plain) {
		t.Errorf("it is %v now", got)
	}
}

func shrunk(t *testing.T, full image.Image) image.Image {
	t.Helper()
	var b bytes.Buffer
	must(t, png.Encode(&b, full))
	small, err := shrink(b.Bytes())
	must(t, err)
	picture, err := png.Decode(bytes.NewReader(small))
	must(t, err)
	return picture
}

// farthest is by how much the colour is off that is off the most, once a picture is shrunk.
func farthest(t *testing.T, full image.Image) (off int) {
	t.Helper()
	small, origin := shrunk(t, full), full.Bounds().Min
	if small.Bounds().Size() != full.Bounds().Size() {
		t.Fatalf("it is %v now", small.Bounds())
	}
	for y := range full.Bounds().Dy() {
		for x := range full.Bounds().Dx() {
			a, b := rgbOf(full.At(origin.X+x, origin.Y+y)), rgbOf(small.At(x, y))
			for i := range a {
				off = max(off, int(a[i])-int(b[i]), int(b[i])-int(a[i]))
			}
		}
	}
	return off
}
