package main

import (
	"strings"
	"unicode"
)

// What a User-Agent says, and what that means. The first that it says counts: most browsers claim to be others as well.
var (
	browsers = []said{
		{"Edg", "Edge"}, {"OPR/", "Opera"}, {"SamsungBrowser/", "Samsung Internet"}, {"Firefox/", "Firefox"}, {"FxiOS/", "Firefox"},
		{"CriOS/", "Chrome"}, {"Chrome/", "Chrome"}, {"Safari/", "Safari"},
	}
	systems = []said{
		{"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Android", "Android"}, {"Windows", "Windows"}, {"Macintosh", "Mac"}, {"CrOS", "ChromeOS"},
		{"Linux", "Linux"},
	}
)

type said struct{ text, means string }

func find(agent string, list []said) string {
	for _, s := range list {
		if strings.Contains(agent, s.text) {
			return s.means
		}
	}
	return ""
}

// deviceName is a name for people of a User-Agent, which is whatever a client likes to send.
func deviceName(agent string) string {
	browser, system := find(agent, browsers), find(agent, systems)
	switch {
	case browser != "" && system != "":
		return browser + " on " + system
	case browser != "" || system != "":
		return browser + system
	}
	name, _, _ := strings.Cut(agent, "/") // as of curl/8.5.0
	runes := []rune(strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) { // and no character that turns the text around
			return r
		}
		return -1
	}, name)))
	switch {
	case len(runes) == 0:
		return "Unknown device"
	case len(runes) > 40:
		return string(runes[:39]) + "…"
	}
	return string(runes)
}
