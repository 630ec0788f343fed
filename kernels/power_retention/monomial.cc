#include "kernels/power_retention/monomial.h"

#include "kernels/power_retention/layout.h"

namespace statehouse::kernels {

Monomial Monomial::OfRank(int64_t rank, int d, int degree) {
  Monomial monomial;
  monomial.degree = degree;
  monomial.d = d;
  int value = 0;
  for (int place = 0; place < degree; ++place) {
    // With `value` in this place, the places behind it run over the d - value variables from `value` on.
    for (;; ++value) {
      const int64_t behind = ExpandedSize(d - value, degree - 1 - place);
      if (rank < behind) break;
      rank -= behind;
    }
    monomial.index[place] = value;
  }
  return monomial;
}

float Monomial::MultiplicityAt(int64_t offset) const {
  const int last = index[degree - 1] + static_cast<int>(offset);
  if (degree == 2) return last == index[0] ? 1.0f : 2.0f;
  // 4! / (product of the factorials of the lengths of equal runs)
  const int factors[4] = {index[0], index[1], index[2], last};
  int divisor = 1;
  int run = 1;
  for (int i = 1; i < 4; ++i) {
    run = factors[i] == factors[i - 1] ? run + 1 : 1;
    divisor *= run;
  }
  return 24.0f / static_cast<float>(divisor);
}

void Monomial::Advance(int64_t count) {
  index[degree - 1] += static_cast<int>(count);
  int place = degree - 1;
  while (place > 0 && index[place] == d) ++index[--place];
  for (int behind = place + 1; behind < degree; ++behind) index[behind] = index[place];
}

}  // namespace statehouse::kernels
