package main

import (
	"bytes"
	"cmp"
	"image"
	"image/color"
	"image/png"
	"slices"
)

// A tone is a colour and how many pixels have it.
type tone struct {
	rgb    [3]uint8
	pixels int
}

// shrink encodes a picture anew with the 256 colours that suit it best, which for a page is
// less than half the size, and nothing that anybody sees.
func shrink(picture []byte) ([]byte, error) {
	full, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		return nil, err
	}
	palette := paletteOf(tonesOf(full), 256)
	bounds := full.Bounds()
	small := image.NewPaletted(bounds, palette)
	nearest := make(map[[3]uint8]uint8)
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			c := rgbOf(full.At(x, y))
			i, known := nearest[c]
			if !known {
				i = uint8(palette.Index(color.RGBA{c[0], c[1], c[2], 255}))
				nearest[c] = i
			}
			small.SetColorIndex(x, y, i)
		}
	}
	var out bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	err = encoder.Encode(&out, small)
	return out.Bytes(), err
}

func rgbOf(c color.Color) [3]uint8 {
	r, g, b, _ := c.RGBA()
	return [3]uint8{uint8(r >> 8), uint8(g >> 8), uint8(b >> 8)}
}

func tonesOf(picture image.Image) []tone {
	count := make(map[[3]uint8]int)
	bounds := picture.Bounds()
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			count[rgbOf(picture.At(x, y))]++
		}
	}
	var tones []tone
	for rgb, n := range count {
		tones = append(tones, tone{rgb, n})
	}
	return tones
}

// paletteOf returns at most n colours for tones. Half of them are the commonest tones as they
// are, which is all that is plain. The rest, the edges of letters, is represented.
func paletteOf(tones []tone, n int) color.Palette {
	slices.SortFunc(tones, func(a, b tone) int {
		return cmp.Or(cmp.Compare(b.pixels, a.pixels), slices.Compare(a.rgb[:], b.rgb[:]))
	})
	plain := min(n/2, len(tones))
	if len(tones) <= n {
		plain = len(tones)
	}
	var palette color.Palette
	for _, t := range tones[:plain] {
		palette = append(palette, t.color())
	}
	return append(palette, represent(tones[plain:], n-plain)...)
}

func (t tone) color() color.Color { return color.RGBA{t.rgb[0], t.rgb[1], t.rgb[2], 255} }

// represent returns at most n colours for tones, by median cut: the box of tones that are
// farthest apart is cut in two until there are as many boxes, each with its commonest tone.
func represent(tones []tone, n int) (palette color.Palette) {
	if len(tones) == 0 {
		return nil
	}
	boxes := [][]tone{tones}
	for len(boxes) < n {
		widest, axis, width := 0, 0, 0
		for i, box := range boxes {
			if a, w := spread(box); w > width {
				widest, axis, width = i, a, w
			}
		}
		if width == 0 {
			break // each has one tone
		}
		box := boxes[widest]
		slices.SortFunc(box, func(a, b tone) int { return cmp.Compare(a.rgb[axis], b.rgb[axis]) })
		boxes[widest] = box[:len(box)/2]
		boxes = append(boxes, box[len(box)/2:])
	}
	for _, box := range boxes {
		palette = append(palette, slices.MaxFunc(box, func(a, b tone) int { return cmp.Compare(a.pixels, b.pixels) }).color())
	}
	return palette
}

// spread returns in which of the three colours the tones differ most, and by how much.
func spread(box []tone) (axis, width int) {
	for a := range 3 {
		low, high := uint8(255), uint8(0)
		for _, t := range box {
			low, high = min(low, t.rgb[a]), max(high, t.rgb[a])
		}
		if w := int(high) - int(low); len(box) > 1 && w > width {
			axis, width = a, w
		}
	}
	return axis, width
}
