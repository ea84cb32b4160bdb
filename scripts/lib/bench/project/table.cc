// Templates, as a C++ compiler meets them.
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

template <typename Key, typename Value> class Table {
public:
  void add(const Key &key, Value value) { entries[key].push_back(std::move(value)); }
  template <typename Fold> std::vector<std::pair<Key, Value>> folded(Value start, Fold fold) const {
    std::vector<std::pair<Key, Value>> result;
    for (const auto &[key, values] : entries) {
      Value sum = start;
      for (const auto &value : values) sum = fold(sum, value);
      result.emplace_back(key, sum);
    }
    std::sort(result.begin(), result.end(), [](const auto &a, const auto &b) { return b.second < a.second; });
    return result;
  }

private:
  std::map<Key, std::vector<Value>> entries;
};

int main() {
  Table<std::string, long> counts;
  Table<int, std::string> words;
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream parts(line);
    for (std::string word; parts >> word;) {
      counts.add(word, 1);
      words.add(static_cast<int>(word.size()), word);
    }
  }
  for (const auto &[name, count] : counts.folded(0, std::plus<long>())) std::cout << name << ' ' << count << '\n';
  for (const auto &[length, all] : words.folded("", [](std::string a, const std::string &b) { return a + b; })) std::cout << length << ' ' << all << '\n';
}
