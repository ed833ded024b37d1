// An ordinary HTTP server with nothing of Kubedaemon's in it, and callers for the other side.
//
//	worker serve               POST /message does what the body says, GET / answers with the name of the pod
//	worker get URL             prints status and body of one answer, and how long it took
//	worker get-many N URL      makes N calls at once; prints each status with how often it came
//
// The body of a message is JSON: {"id": "7", "sleep_ms": 20, "status": 200, "then": ""}; "then" may be "exit" or "oom".
// What begins and ends is told to the test at RECORDER, when that is set.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

type message struct {
	ID      string `json:"id"`
	SleepMS int    `json:"sleep_ms"`
	Status  int    `json:"status"`
	Then    string `json:"then"`
}

func main() {
	switch os.Args[1] {
	case "serve":
		serve()
	case "exit":
		fmt.Println("leaving as told")
		os.Exit(3)
	case "get":
		begun := time.Now()
		status, body := get(os.Args[2])
		fmt.Printf("%s %d %s\n", status, time.Since(begun).Milliseconds(), body)
	case "get-many":
		getMany()
	default:
		end(fmt.Errorf("unknown command %s", os.Args[1]))
	}
}

func serve() {
	pod, err := os.Hostname()
	end(err)
	recorder := os.Getenv("RECORDER")
	record := func(event, id string) {
		if recorder == "" {
			return
		}
		answer, err := http.Post(fmt.Sprintf("%s/%s/%s/%s", recorder, event, id, pod), "text/plain", nil)
		if err != nil {
			fmt.Println("recorder:", err)
			return
		}
		answer.Body.Close()
	}
	http.HandleFunc("POST /message", func(answer http.ResponseWriter, request *http.Request) {
		told := message{Status: 200}
		body, err := io.ReadAll(request.Body)
		if err != nil {
			http.Error(answer, err.Error(), http.StatusBadRequest)
			return
		}
		// What is no JSON is done at once.
		if err := json.Unmarshal(body, &told); err != nil {
			told = message{ID: "plain", Status: 200}
		}
		fmt.Printf("message %s\n", body)
		record("begin", told.ID)
		time.Sleep(time.Duration(told.SleepMS) * time.Millisecond)
		switch told.Then {
		case "exit":
			os.Exit(3)
		case "oom":
			devour()
		}
		record("end", told.ID)
		answer.WriteHeader(told.Status)
	})
	http.HandleFunc("/", func(answer http.ResponseWriter, request *http.Request) {
		if pause, err := strconv.Atoi(request.URL.Query().Get("sleep_ms")); err == nil {
			time.Sleep(time.Duration(pause) * time.Millisecond)
		}
		fmt.Fprint(answer, pod)
	})
	record("start", "-")
	fmt.Println("serving")
	end(http.ListenAndServe(":8080", nil))
}

// Takes memory until the kernel ends the process.
func devour() {
	var kept [][]byte
	for {
		block := make([]byte, 1<<20)
		for index := range block {
			block[index] = 1
		}
		kept = append(kept, block)
	}
}

func get(url string) (string, string) {
	client := http.Client{Timeout: 90 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get(url)
	if err != nil {
		return "error", err.Error()
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return "broken", err.Error()
	}
	return strconv.Itoa(answer.StatusCode), string(body)
}

func getMany() {
	count, err := strconv.Atoi(os.Args[2])
	end(err)
	var lock sync.Mutex
	var calls sync.WaitGroup
	statuses := map[string]int{}
	for range count {
		calls.Go(func() {
			status, body := get(os.Args[3])
			if status == "error" || status == "broken" {
				status += ":" + strings.ReplaceAll(body, " ", "_")
			}
			lock.Lock()
			defer lock.Unlock()
			statuses[status]++
		})
	}
	calls.Wait()
	var lines []string
	for status, times := range statuses {
		lines = append(lines, fmt.Sprintf("%s=%d", status, times))
	}
	sort.Strings(lines)
	fmt.Println(strings.Join(lines, " "))
}

func end(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
